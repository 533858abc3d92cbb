"""Sends the events of all attempts to Redis: one round trip for whatever has come up since the last."""

import threading
import time
from collections.abc import Callable

import structlog

from tasks.attempt import Attempt
from tasks.vital_thread import start_vital_thread
from vlmq.events import REDIS_ERRORS, Event, EventLog

log = structlog.get_logger(__name__)

RETRY_S = 0.5
# What only tells how far a job is goes with its first text, if that comes within so many seconds.
SOON_S = 0.02
# Seconds; after that, readers get the end of an attempt that ended while Redis was away from the database.
KEEP_ENDED_S = 60.0


class StreamWriter:
    """Keeps every attempt's events until it ends, so that a stream which Redis lost is written again, whole.

    `on_lost` hears of attempts whose stream has moved on: the job is somebody else's.
    """

    def __init__(
        self, event_log: EventLog, on_lost: Callable[[Attempt], None], *, keep_ended_s: float = KEEP_ENDED_S
    ) -> None:
        self._log = event_log
        self._on_lost = on_lost
        self._keep_ended_s = keep_ended_s
        self._attempts: dict[Attempt, float | None] = {}  # value: when it ended
        self._wake = threading.Event()
        self._now = threading.Event()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._doubt = False  # whether Redis may have missed or lost something that counts as sent
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = start_vital_thread("stream writer", self._run)

    def add(self, attempt: Attempt) -> None:
        with self._lock:
            self._attempts[attempt] = None

    def wake(self) -> None:
        """There are new events."""
        self._now.set()
        self._wake.set()

    def wake_soon(self) -> None:
        """There are new events that may wait a little for others: each sending takes time from the model's thread."""
        self._wake.set()

    def end(self, attempt: Attempt) -> None:
        """No more events will come; forget the attempt once they are sent."""
        with self._lock:
            if attempt in self._attempts:
                self._attempts[attempt] = time.monotonic()
        self.wake()

    def __contains__(self, attempt: Attempt) -> bool:
        return attempt in self._attempts

    def stop(self, timeout: float) -> None:
        """Send what is left, for at most `timeout` seconds."""
        self._stopping.set()
        self.wake()
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._now.wait(SOON_S)
            # In this order: what wakes in between is sent below, and never waits.
            self._now.clear()
            self._wake.clear()
            try:
                self._flush()
            except REDIS_ERRORS as error:
                log.warning("Redis is away or takes nothing; events wait", error=str(error))
                self._doubt = True
                if self._stopping.wait(RETRY_S):
                    return
                self._wake.set()
            if self._stopping.is_set() and not self._wake.is_set():
                return

    def _flush(self) -> None:
        with self._lock:
            attempts = dict(self._attempts)
        try:
            if self._doubt:
                for attempt in attempts:
                    self._find_position(attempt)
                self._doubt = False
            self._send({attempt: len(attempt.events) for attempt in attempts})
        finally:
            self._forget_ended(attempts)

    def _send(self, counts: dict[Attempt, int]) -> None:
        """Send each attempt's events up to a number of them."""
        entries: list[tuple[str, Event]] = []
        for attempt, count in counts.items():
            entries += [(attempt.job.id, event) for event in attempt.events[attempt.sent : count]]
        if not entries:
            return
        appended = self._log.append(entries)
        for attempt, count in counts.items():
            if attempt.job.id in appended.refused:
                # By a later attempt's stream, or its own: a connection that broke before the answer sends twice.
                self._find_position(attempt)
                self._wake.set()
            elif attempt.job.id in appended.lost:
                log.warning("Redis lost a stream; writing it again", job=attempt.job.id)
                attempt.sent = 0
                self._wake.set()
            else:
                attempt.sent = count

    def _find_position(self, attempt: Attempt) -> None:
        last = self._log.last_id(attempt.job.id)
        if last is None or last.attempt < attempt.number:
            attempt.sent = 0
        elif last.attempt == attempt.number:
            attempt.sent = min(last.seq, len(attempt.events))
        else:
            self._lose(attempt)

    def _lose(self, attempt: Attempt) -> None:
        with self._lock:
            self._attempts.pop(attempt, None)
        self._on_lost(attempt)

    def _forget_ended(self, attempts: dict[Attempt, float | None]) -> None:
        now = time.monotonic()
        with self._lock:
            for attempt, ended in attempts.items():
                sent = attempt.sent == len(attempt.events)
                if ended is not None and (sent or now - ended > self._keep_ended_s):
                    self._attempts.pop(attempt, None)
