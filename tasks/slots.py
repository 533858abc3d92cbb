"""How many jobs a worker holds at once, while one more thread stands by for prompts that are only to be rendered."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class Slot:
    """Whether the thread may run any job; and, once it has left, whether another has asked in vain meanwhile."""

    taken: bool
    asked_for: bool = False


class Slots:
    """A counter of jobs that loses no doorbell.

    A thread that finds no slot has used up a ring that may have been for any job. It leaves word, and whoever has a
    slot looks for another job before going to sleep.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._held = 0
        self._lock = threading.Lock()
        self._asked_for = threading.Event()

    @property
    def are_taken(self) -> bool:
        return self._held >= self.number

    def _acquire(self) -> bool:
        with self._lock:
            free = self._held < self.number
            self._held += free
        return free

    @contextmanager
    def take(self) -> Iterator[Slot]:
        if not self._acquire():
            self._asked_for.set()
            # Tried again after leaving word: the last holder may have looked for it just before.
            if not self._acquire():
                yield Slot(taken=False)
                return
        slot = Slot(taken=True)
        # Cleared before looking for a job, so that a word that comes after the look is kept.
        self._asked_for.clear()
        try:
            yield slot
        finally:
            with self._lock:
                self._held -= 1
            slot.asked_for = self._asked_for.is_set()
