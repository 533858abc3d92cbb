"""Whether the part that runs on this host is well, for the health checks of containers."""

import socket

import requests
from sqlalchemy.exc import SQLAlchemyError

from models.db import Database
from models.worker import WorkerState, live_workers
from vlmq.config import Settings

TIMEOUT_S = 5


def api_is_well(settings: Settings) -> bool:
    """The API answers. Whether it can do its work, /readyz says; a restart would not help it."""
    try:
        return requests.get(f"{settings.local_url}/healthz", timeout=TIMEOUT_S).ok
    except requests.RequestException:
        return False


def worker_is_well(settings: Settings) -> bool:
    """A worker of this host has loaded its model and gave a sign of life within its lease."""
    database = Database(settings.sqlalchemy_url)
    try:
        with database.read() as session:
            workers = live_workers(session, silence_s=settings.timing.lease_s)
    except SQLAlchemyError:
        return False
    finally:
        database.dispose()
    well = (WorkerState.READY, WorkerState.DRAINING)
    return any(worker.hostname == socket.gethostname() and worker.state in well for worker in workers)
