"""The jobs that this worker holds: their leases, their cancels, and the engine's events on the way to them."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from engine.engine import Engine
from engine.types import Delta, Event, Failed, Finished, Started
from models.db import DATABASE_ERRORS, Database
from models.job import JobStatus, Outcome
from models.lifecycle import Change, release, renew_leases
from tasks.attempt import Attempt, Stop
from tasks.stream_writer import StreamWriter
from tasks.vital_thread import EXIT_AGAIN, start_vital_thread
from vlmq.config import Settings
from vlmq.events import EventLog

log = structlog.get_logger(__name__)


class HeldJobs:
    """Registry of attempts with three threads: one moves the engine's events, one sends them, one renews leases."""

    def __init__(
        self, settings: Settings, worker_id: str, database: Database, engine: Engine, event_log: EventLog
    ) -> None:
        self._settings, self._worker_id, self._database, self._engine = settings, worker_id, database, engine
        self.writer = StreamWriter(event_log, self._lose)
        self._attempts: dict[str, Attempt] = {}  # by sequence id
        self._at_work = 0
        self._lock = threading.Lock()
        self._removed = threading.Condition(self._lock)
        self._stopped = threading.Event()
        self.closed = False  # no more claims
        self._giving_back = False

    def start(self) -> None:
        self.writer.start()
        start_vital_thread("engine events", self._pump)
        start_vital_thread("leases", self._keep_leases)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """To be held from before a claim until after the job's end, so that a drain misses no job in between."""
        with self._lock:
            self._at_work += 1
        try:
            yield
        finally:
            with self._lock:
                self._at_work -= 1

    def add(self, attempt: Attempt) -> None:
        with self._lock:
            self._attempts[attempt.sequence_id] = attempt
        if self._giving_back:
            attempt.ask_to_stop(Stop.RELEASE)
        # Its first event goes with the next, which comes within milliseconds.
        self.writer.add(attempt)

    def remove(self, attempt: Attempt) -> None:
        with self._lock:
            del self._attempts[attempt.sequence_id]
            self._removed.notify_all()
        self.writer.end(attempt)

    def all(self) -> list[Attempt]:
        with self._lock:
            return list(self._attempts.values())

    def wait_for_an_end(self, timeout: float) -> None:
        """Wait until one of the attempts is over, for at most `timeout` seconds."""
        with self._removed:
            if self._attempts:
                self._removed.wait(timeout)

    def cancel(self, job_id: str) -> None:
        for attempt in self.all():
            if attempt.job.id == job_id:
                self._stop(attempt, Stop.CANCEL)

    def drain(self, grace_s: float) -> list[Change]:
        """Claim no more; let running jobs end for `grace_s` seconds, then give the rest back.

        Returns what became of those whose threads did not write it themselves, for which nobody has rung yet.
        """
        self.closed = True
        self._wait_until_idle(grace_s)
        self._giving_back = True
        for attempt in self.all():
            self._stop(attempt, Stop.RELEASE)
        # A running generation ends within two steps and its thread gives the job back, with the stream in order.
        self._wait_until_idle(1.0)
        return self._give_back_now(self.all())

    def _wait_until_idle(self, seconds: float) -> None:
        give_up_at = time.monotonic() + seconds
        while self._at_work and time.monotonic() < give_up_at:
            time.sleep(0.02)

    def stop(self) -> None:
        self._stopped.set()
        self.writer.stop(timeout=2.0)

    def _give_back_now(self, attempts: list[Attempt]) -> list[Change]:
        """For attempts whose threads are stuck in a download or a decoder: the fence shuts them out."""
        changes: list[Change] = []
        for attempt in attempts:
            outcome = Outcome(JobStatus.CANCELLED, output_text=attempt.text)
            try:
                with self._database.write() as session:
                    change = release(session, attempt.job.id, attempt.number, outcome)
            except DATABASE_ERRORS as error:
                log.warning("could not give jobs back; their leases will run out", error=str(error))
                break
            if change is not None:
                attempt.record("status", change.event_data)
                self.writer.wake()
                changes.append(change)
        return changes

    def _stop(self, attempt: Attempt, reason: Stop) -> None:
        if attempt.ask_to_stop(reason):
            self._engine.cancel(attempt.sequence_id)

    def _lose(self, attempt: Attempt) -> None:
        """The job seems to be somebody else's. If so, the fence refuses its release; if not, nothing is lost."""
        self._stop(attempt, Stop.RELEASE)

    def _pump(self) -> None:
        while not self._stopped.is_set():
            events = self._engine.next_step(0.5)
            for event in events:
                attempt = self._attempts.get(event.id)
                if attempt is not None:
                    _hand_over(event, attempt)
            if any(isinstance(event, Delta) for event in events):
                self.writer.wake()

    def _keep_leases(self) -> None:
        timing = self._settings.timing
        while not self._stopped.wait(timing.heartbeat_s):
            if time.monotonic() - self._engine.last_progress() > timing.stall_s:
                log.critical("the engine makes no progress; leaving", stall_s=timing.stall_s)
                os._exit(EXIT_AGAIN)
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
                self._lose(attempt)
            elif attempt.job.id in cancelled:
                self._stop(attempt, Stop.CANCEL)


def _hand_over(event: Event, attempt: Attempt) -> None:
    if isinstance(event, Delta):
        attempt.say(event.text, event.tokens)
    elif isinstance(event, Started):
        attempt.started_at = time.monotonic()
    elif isinstance(event, Finished | Failed):
        attempt.set_result(event)
