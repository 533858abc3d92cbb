"""What the API's handlers work with, made once a process."""

from dataclasses import dataclass

import redis
from flask import current_app

from api.announcer import Announcer
from api.event_hub import EventHub
from models.db import Database
from vlmq.config import Settings
from vlmq.doorbell import Doorbell, make_celery
from vlmq.events import EventLog, connect
from vlmq.files import FileStore

EXTENSION = "vlmq"
# For what somebody waits for. Everything in a request can do without Redis.
READ_TIMEOUT_S = 1.5


@dataclass(frozen=True)
class Services:
    settings: Settings
    database: Database
    files: FileStore
    redis: "redis.Redis"
    event_log: EventLog
    hub: EventHub
    announcer: Announcer

    def close(self) -> None:
        """End streams and send what waits for Redis."""
        self.hub.close()
        self.announcer.close()


def make_services(settings: Settings) -> Services:
    """Nothing is connected and no thread runs yet, so that this may come before a fork."""
    database = Database(settings.sqlalchemy_url)
    ttl_s = settings.timing.stream_ttl_s
    client, impatient = connect(settings.redis_url), connect(settings.redis_url, timeout_s=READ_TIMEOUT_S)
    return Services(
        settings=settings,
        database=database,
        files=FileStore(settings.files_dir),
        redis=impatient,
        event_log=EventLog(impatient, final_ttl_s=ttl_s),
        hub=EventHub(client, database),
        announcer=Announcer(EventLog(client, final_ttl_s=ttl_s), Doorbell(make_celery(settings))),
    )


def services() -> Services:
    """Those of the application that handles this request."""
    found: Services = current_app.extensions[EXTENSION]
    return found
