"""A worker's row in the database, kept fresh for as long as the worker lives."""

import os
import socket
import threading
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from models.db import Database, utc_now
from models.worker import Worker, WorkerState, heartbeat, leave
from vlmq.config import Settings
from vlmq.ids import new_worker_id

log = structlog.get_logger(__name__)

STOP_S = 5.0


class Presence:
    """Says who this worker is and how it is; while the database is away, nobody hears it and nothing else happens."""

    def __init__(self, database: Database, settings: Settings, *, model: str | None) -> None:
        """`model` is None for a light worker."""
        self.worker_id = new_worker_id()
        self._database = database
        self._every_s = settings.timing.heartbeat_s
        self._model = model
        self._started_at = utc_now()
        self._state = WorkerState.LOADING
        self._details: dict[str, Any] = {}
        # Held while writing too, so that an older state never overwrites a newer one.
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def set_state(self, state: WorkerState, details: dict[str, Any] | None = None) -> None:
        """Write the state now; `details` stay as they are unless given."""
        with self._lock:
            self._state = state
            if details is not None:
                self._details = details
            # Not after the row was removed, which would bring it back.
            if not self._ended.is_set():
                self._beat()

    def note_draining(self) -> None:
        """Say so without waiting for the database: a shutdown has little time."""
        threading.Thread(target=self.set_state, args=(WorkerState.DRAINING,), name="draining", daemon=True).start()

    def stop(self) -> None:
        """Remove the row. With the database away it stays and is told by its old heartbeat."""
        self._ended.set()
        self._thread.join(STOP_S)

    def _run(self) -> None:
        while not self._ended.is_set():
            with self._lock:
                self._beat()
            self._ended.wait(self._every_s)
        try:
            with self._lock, self._database.write() as session:
                leave(session, self.worker_id)
        except SQLAlchemyError as error:
            log.warning("could not sign off from the database", error=str(error))

    def _beat(self) -> None:
        row = Worker(
            id=self.worker_id,
            model=self._model,
            state=self._state,
            hostname=socket.gethostname(),
            pid=os.getpid(),
            started_at=self._started_at,
            details=self._details,
        )
        try:
            with self._database.write() as session:
                heartbeat(session, row)
        except SQLAlchemyError as error:
            log.warning("no heartbeat: the database is away", error=str(error))
