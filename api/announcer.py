"""Tells Redis what the database has decided, in the background: no request waits for a broker that hangs."""

import queue
import threading
import time
from collections.abc import Callable

import structlog

from models.announcements import WIRE_ERRORS, announce
from models.lifecycle import Change
from vlmq.doorbell import Doorbell
from vlmq.events import EventLog

log = structlog.get_logger(__name__)

# More wait only while the broker is away; then the reconciler rings for what is dropped here.
MAX_WAITING = 10_000


class Announcer:
    """One thread that rings and announces, in order. What it cannot get through is only a delay (see `announce`)."""

    def __init__(self, event_log: EventLog, doorbell: Doorbell) -> None:
        self._log, self._doorbell = event_log, doorbell
        self._waiting: queue.Queue[Callable[[], None] | None] = queue.Queue(MAX_WAITING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def ring_job(self, model: str, job_id: str) -> None:
        self._put(lambda: self._doorbell.ring_job(model, job_id))
        # Under gevent the ring is then on its way before the answer is written, and nobody waits for its reply.
        time.sleep(0)

    def ring_delivery(self, delivery_id: str) -> None:
        self._put(lambda: self._doorbell.ring_delivery(delivery_id))

    def changed(self, change: Change) -> None:
        self._put(lambda: announce([change], self._log, self._doorbell))

    def cancel_requested(self, job_id: str) -> None:
        self._put(lambda: self._log.announce_cancel(job_id))

    def deleted(self, job_id: str) -> None:
        self._put(lambda: self._log.delete(job_id))

    def close(self, timeout: float = 2.0) -> None:
        """Send what waits, for at most `timeout` seconds."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            self._put(None)
            thread.join(timeout)

    def _put(self, action: Callable[[], None] | None) -> None:
        # Threads do not survive the server's fork, so the first use starts it.
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)
                self._thread.start()
        try:
            self._waiting.put_nowait(action)
        except queue.Full:
            log.warning("too much waits for Redis; the reconciler will make up for what is dropped")

    def _run(self) -> None:
        while (action := self._waiting.get()) is not None:
            try:
                action()
            except WIRE_ERRORS as error:
                log.warning("could not reach Redis; the reconciler will make up for it", error=str(error))
            except Exception:
                log.exception("could not announce")
