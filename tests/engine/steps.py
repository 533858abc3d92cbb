"""Do something within a step of a real model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from engine.checkpoint import Checkpoint


@contextmanager
def at_step(checkpoint: Checkpoint, number: int, act: Callable[[], None]) -> Iterator[list[int]]:
    """Do something within the model's call of this number, from 1; yields the numbers of the calls made."""
    calls: list[int] = []

    def count(_module: Any, _args: Any, _kwargs: Any) -> None:
        calls.append(len(calls) + 1)
        if len(calls) == number:
            act()

    hook = checkpoint.model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield calls
    finally:
        hook.remove()


def fail_with(error: Exception) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act
