"""Read an engine's events as its one reader does, bounded in time."""

import time
from collections.abc import Callable

from engine.engine import Engine
from engine.types import Delta, Event, Failed, Finished, GenerationParameters, PromptRequest

PATIENCE_S = 60.0


def read_until(engine: Engine, enough: Callable[[list[Event]], bool]) -> list[Event]:
    events: list[Event] = []
    give_up = time.monotonic() + PATIENCE_S
    while not enough(events):
        assert time.monotonic() < give_up, f"waited in vain after {events[-3:]}"
        events += engine.next_step(1.0)
    return events


def read_ends(engine: Engine, count: int) -> list[Event]:
    """Everything up to the last event of `count` sequences."""
    return read_until(engine, lambda events: sum(isinstance(event, Finished | Failed) for event in events) == count)


def run(engine: Engine, prompt: PromptRequest, parameters: GenerationParameters, id: str = "only") -> list[Event]:
    engine.submit(engine.prepare(id, prompt, parameters))
    return read_ends(engine, 1)


def finish(engine: Engine, prompt: PromptRequest, parameters: GenerationParameters) -> Finished:
    last = run(engine, prompt, parameters)[-1]
    assert isinstance(last, Finished), last
    return last


def of(events: list[Event], id: str) -> list[Event]:
    return [event for event in events if event.id == id]


def text_of(events: list[Event], id: str) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta) and event.id == id)


def end_of(events: list[Event], id: str) -> Finished | Failed:
    last = of(events, id)[-1]
    assert isinstance(last, Finished | Failed), last
    return last


def ask(text: str) -> PromptRequest:
    return PromptRequest([{"role": "user", "content": text}])
