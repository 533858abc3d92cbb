"""Sequences that wait for an engine which runs one at a time, and the wish to end them early."""

import threading
import time
from collections import deque

from engine.types import FinishReason, Sequence
from vlmq.errors import ErrorCode, VlmqError


class Line:
    """First come, first served. Callers `join` and `cancel`; the engine's thread does the rest."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Sequence] = deque()
        self._running: str | None = None
        self._joined: dict[str, float] = {}  # by id: when it joined, for those that wait
        self._waited = 0.0  # how long the running one has waited
        self._cancelled: set[str] = set()
        self._closed = False

    @property
    def busy(self) -> bool:
        return self._running is not None or bool(self._waiting)

    @property
    def closed(self) -> bool:
        return self._closed

    def join(self, sequence: Sequence) -> None:
        """Wait to be run.

        Raises:
            VlmqError: UNAVAILABLE once closed.
            ValueError: the id is in the line already, or running.
        """
        with self._changed:
            if self._closed:
                raise VlmqError(ErrorCode.UNAVAILABLE, "The engine takes no more work")
            if self._holds(sequence.id):
                raise ValueError(f"sequence {sequence.id} is already alive")
            self._waiting.append(sequence)
            self._joined[sequence.id] = time.monotonic()
            self._changed.notify()

    def cancel(self, id: str) -> None:
        with self._changed:
            if self._holds(id):
                self._cancelled.add(id)
                self._changed.notify()

    def close(self) -> None:
        """Let nobody in any more; all that are left count as cancelled."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def wait(self) -> bool:
        """Wait until there is something to do; False when closed and empty."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            return bool(self._waiting)

    def take_ended(self) -> list[tuple[Sequence, FinishReason]]:
        """Take out those that will never run."""
        with self._changed:
            if not self._waiting:
                return []
            ended = [(sequence, reason) for sequence in self._waiting if (reason := self.early_end(sequence))]
            for sequence, _ in ended:
                self._waiting.remove(sequence)
                del self._joined[sequence.id]
                self._cancelled.discard(sequence.id)
            return ended

    def take_next(self) -> Sequence | None:
        """Take out the first one, to run it until `done`."""
        with self._changed:
            if not self._waiting:
                return None
            sequence = self._waiting.popleft()
            self._running = sequence.id
            self._waited = time.monotonic() - self._joined.pop(sequence.id)
            return sequence

    def done(self, sequence: Sequence) -> None:
        with self._changed:
            self._running = None
            self._cancelled.discard(sequence.id)

    def early_end(self, sequence: Sequence) -> FinishReason | None:
        """Why a sequence ends now, whatever it has generated. Its deadline moves on while it waits."""
        if self._closed or sequence.id in self._cancelled:
            return "cancelled"
        # Its own time stands still until it runs.
        now = self._joined.get(sequence.id) or time.monotonic() - self._waited
        if sequence.deadline is not None and now >= sequence.deadline:
            return "deadline"
        return None

    def _holds(self, id: str) -> bool:
        return id == self._running or any(id == sequence.id for sequence in self._waiting)
