"""Whether the part that runs on this host is well, for the health checks of containers."""

import socket

import requests
from sqlalchemy.exc import SQLAlchemyError

from models.db import Database
from models.worker import WorkerState, live_workers
from vlmq.config import Settings

TIMEOUT_S = 5


def trouble_of_api(settings: Settings) -> str | None:
    """None when the API answers. Whether it can do its work, /readyz says; a restart would not help it."""
    try:
        answer = requests.get(f"{settings.local_url}/healthz", timeout=TIMEOUT_S)
    except requests.RequestException:
        return f"no API answers at {settings.local_url}"
    return None if answer.ok else f"{settings.local_url}/healthz answers {answer.status_code}"


def trouble_of_worker(settings: Settings) -> str | None:
    """None when a worker of this host has loaded its model and gave a sign of life within its lease."""
    if settings.sqlite_file is not None and not settings.sqlite_file.exists():
        return f"there is no database in {settings.sqlite_file.parent}"
    host = socket.gethostname()
    database = Database(settings.sqlalchemy_url)
    try:
        with database.read() as session:
            workers = live_workers(session, silence_s=settings.timing.lease_s)
    except SQLAlchemyError:
        return "the database does not answer, or has no schema; see `vlmq doctor`"
    finally:
        database.dispose()
    here = [worker.state for worker in workers if worker.hostname == host]
    if WorkerState.READY in here or WorkerState.DRAINING in here:
        return None
    if here:
        return f"the worker of this host ({host}) is {here[0]}"
    return f"no worker of this host ({host}) has been heard of for {settings.timing.lease_s:g} s"
