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
    client = connect(settings.redis_url)
    event_log = EventLog(client, final_ttl_s=settings.timing.stream_ttl_s)
    return Services(
        settings=settings,
        database=database,
        files=FileStore(settings.files_dir),
        redis=client,
        event_log=event_log,
        hub=EventHub(client, database),
        announcer=Announcer(event_log, Doorbell(make_celery(settings))),
    )


def services() -> Services:
    """Those of the application that handles this request."""
    found: Services = current_app.extensions[EXTENSION]
    return found
