"""The jobs that this worker holds: their leases, their cancels, and the engine's events on the way to them."""

import os
import threading
import time
from collections.abc import Callable

import structlog

from engine.engine import Engine
from engine.types import Delta, Event, Failed, Finished
from models.db import DATABASE_ERRORS, Database
from models.lifecycle import release, renew_leases
from tasks.attempt import Attempt, Stop
from tasks.stream_writer import StreamWriter
from vlmq.config import Settings
from vlmq.events import EventLog

log = structlog.get_logger(__name__)

# The exit status that tells a supervisor to start the worker again (sysexits.h: EX_SOFTWARE).
EXIT_ENGINE_LOST = 70


class HeldJobs:
    """Registry of attempts with three threads: one moves the engine's events, one sends them, one renews leases."""

    def __init__(
        self, settings: Settings, worker_id: str, database: Database, engine: Engine, event_log: EventLog
    ) -> None:
        self._settings, self._worker_id, self._database, self._engine = settings, worker_id, database, engine
        self.writer = StreamWriter(event_log, self._lost)
        self._attempts: dict[str, Attempt] = {}  # by sequence id
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self.closed = False  # no more claims

    def start(self) -> None:
        self.writer.start()
        threading.Thread(target=self._guarded, args=(self._pump,), name="engine events", daemon=True).start()
        threading.Thread(target=self._guarded, args=(self._keep_leases,), name="leases", daemon=True).start()

    def add(self, attempt: Attempt) -> None:
        with self._lock:
            self._attempts[attempt.sequence_id] = attempt
        self.writer.add(attempt)
        self.writer.wake()

    def remove(self, attempt: Attempt) -> None:
        with self._lock:
            del self._attempts[attempt.sequence_id]
        self.writer.end(attempt)

    def all(self) -> list[Attempt]:
        with self._lock:
            return list(self._attempts.values())

    def cancel(self, job_id: str) -> None:
        for attempt in self.all():
            if attempt.job.id == job_id:
                self._stop(attempt, Stop.CANCEL)

    def drain(self, grace_s: float) -> None:
        """Claim no more; let running jobs end for `grace_s` seconds, then give the rest back."""
        self.closed = True
        give_back_at = time.monotonic() + grace_s
        while self.all() and time.monotonic() < give_back_at:
            time.sleep(0.02)
        for attempt in self.all():
            self._stop(attempt, Stop.RELEASE)
        # A running generation ends within two steps and its thread gives the job back, with the stream in order.
        give_up_at = time.monotonic() + 1.0
        while self.all() and time.monotonic() < give_up_at:
            time.sleep(0.02)
        for attempt in self.all():
            self._give_back_now(attempt)

    def stop(self) -> None:
        self._stopped.set()
        self.writer.stop(timeout=2.0)

    def _give_back_now(self, attempt: Attempt) -> None:
        """For an attempt whose thread is stuck in a download or a decoder: the fence shuts it out."""
        with self._database.write() as session:
            change = release(session, attempt.job.id, attempt.number)
        if change is not None:
            attempt.record("status", change.event_data)
            self.writer.wake()
        attempt.ask_to_stop(Stop.LOST)

    def _stop(self, attempt: Attempt, reason: Stop) -> None:
        if attempt.ask_to_stop(reason):
            self._engine.cancel(attempt.sequence_id)

    def _lost(self, attempt: Attempt) -> None:
        self._stop(attempt, Stop.LOST)

    def _guarded(self, loop: Callable[[], None]) -> None:
        # Without this thread the worker would go on claiming jobs that never end; a fresh process is better.
        try:
            loop()
        except BaseException:
            log.critical("a thread that the worker lives by has died; leaving", exc_info=True)
            os._exit(EXIT_ENGINE_LOST)

    def _pump(self) -> None:
        while not self._stopped.is_set():
            for event in self._engine.next_step(0.5):
                attempt = self._attempts.get(event.id)
                if attempt is not None:
                    _hand_over(event, attempt)
            self.writer.wake()

    def _keep_leases(self) -> None:
        timing = self._settings.timing
        while not self._stopped.wait(timing.heartbeat_s):
            if time.monotonic() - self._engine.last_progress() > timing.stall_s:
                log.critical("the engine makes no progress; leaving", stall_s=timing.stall_s)
                os._exit(EXIT_ENGINE_LOST)
            # Before the query, so that a job which is claimed during it isn't taken for lost.
            attempts = self.all()
            if not attempts:
                continue
            try:
                self._renew(attempts)
            except DATABASE_ERRORS as error:
                log.warning("could not renew leases; trying again", error=str(error))

    def _renew(self, attempts: list[Attempt]) -> None:
        ids = [attempt.job.id for attempt in attempts]
        with self._database.write() as session:
            held = renew_leases(session, ids, worker_id=self._worker_id, lease_s=self._settings.timing.lease_s)
        held_ids = {(row.job_id, row.attempt) for row in held}
        cancelled = {row.job_id for row in held if row.cancel_requested}
        for attempt in attempts:
            if (attempt.job.id, attempt.number) not in held_ids:
                self._lost(attempt)
            elif attempt.job.id in cancelled:
                self._stop(attempt, Stop.CANCEL)


def _hand_over(event: Event, attempt: Attempt) -> None:
    if isinstance(event, Delta):
        # PostgreSQL cannot store NUL, which a byte-level vocabulary can produce.
        text = event.text.replace("\0", "\N{REPLACEMENT CHARACTER}")
        attempt.text += text
        attempt.record("delta", {"text": text, "tokens": event.tokens})
    elif isinstance(event, Finished | Failed):
        attempt.set_result(event)
