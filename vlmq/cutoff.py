"""A way to end work that waits for others, from another thread."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Cutoff:
    """Ends downloads and decoding at a time of `time.monotonic()`, or at once when `cut` is called."""

    def __init__(self, at: float = math.inf) -> None:
        self._at = at
        self._actions: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self.was_cut = False

    @property
    def passed(self) -> bool:
        return self.was_cut or time.monotonic() >= self._at

    def seconds(self, most: float) -> float:
        """How long a step may take that may take `most` seconds by itself."""
        return max(0.001, min(most, self._at - time.monotonic()))

    def cut(self) -> None:
        with self._lock:
            self.was_cut = True
            actions = list(self._actions)
        for action in actions:
            action()

    @contextmanager
    def cutting(self, action: Callable[[], None]) -> Iterator[None]:
        """While the block runs, `cut` calls `action`; right away if it was cut before."""
        with self._lock:
            self._actions.append(action)
            already = self.was_cut
        try:
            if already:
                action()
            yield
        finally:
            with self._lock:
                self._actions.remove(action)
