"""An attempt in flight: one job that this worker holds, the events of its stream, and how it is to end."""

import re
import threading
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from engine.types import Failed, Finished
from models.job import Job
from vlmq.cutoff import Cutoff
from vlmq.events import Event, EventId


class Stop(StrEnum):
    """Why an attempt is to end before its time."""

    CANCEL = "cancel"  # the client asked
    RELEASE = "release"  # the worker shuts down, or the job seems to be another's: give it back if it is still held


class StoppedError(Exception):
    """The attempt was ended from outside: a cancel, a shutdown, a job that is another's by now."""


@dataclass(eq=False)
class Attempt:
    """What the worker's threads share about one job. Events are numbered here, in the order of `record`."""

    job: Job
    deadline: float  # time.monotonic(), later by what the engine has let it wait
    events: list[Event] = field(default_factory=list)
    sent: int = 0  # how many of `events` Redis has; the stream writer's own
    stop: Stop | None = None
    lead: str = ""  # what a reader sees before the first text, for as long as there is none
    text: str = ""  # said so far
    started_at: float | None = None  # time.monotonic(): when the engine began with it
    result: Finished | Failed | None = None
    loading: Cutoff = field(init=False)  # ends downloads and decoding
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _changed: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.loading = Cutoff(self.deadline)

    @property
    def number(self) -> int:
        return self.job.attempt

    @property
    def sequence_id(self) -> str:
        """The engine's name for it: an earlier attempt of the same job may still be ending."""
        return f"{self.job.id}/{self.number}"

    def wants(self, event: str) -> bool:
        """Whether the job's webhook subscribes to `event`."""
        return self.job.webhook is not None and event in self.job.webhook["events"]

    def record(self, type_: str, data: dict[str, Any]) -> None:
        """Add an event; the stream writer sends it."""
        with self._lock:
            self.events.append(Event(EventId(self.number, len(self.events) + 1), type_, data))

    def ask_to_stop(self, reason: Stop) -> bool:
        """Note the first reason to stop; whether it was the first."""
        with self._lock:
            if self.stop is not None:
                return False
            self.stop = reason
        self._changed.set()
        self.loading.cut()
        return True

    def check_stop(self) -> None:
        """Raises StoppedError when somebody has asked it to stop."""
        if self.stop is not None:
            raise StoppedError

    def say(self, text: str, tokens: int) -> None:
        """Add to the job's text, and to its stream."""
        self._say_lead()
        self._say(text, tokens)

    def set_result(self, result: Finished | Failed) -> None:
        """Note the engine's last word; a result without any text still has its lead."""
        if isinstance(result, Finished):
            self._say_lead()
        self.result = result
        self._changed.set()

    def _say_lead(self) -> None:
        if self.lead:
            lead, self.lead = self.lead, ""
            self._say(lead, 0)

    def _say(self, text: str, tokens: int) -> None:
        text = storable(text)
        self.text += text
        self.record("delta", {"text": text, "tokens": tokens})

    def wait_for_result(self, timeout: float) -> Finished | Failed | None:
        """The engine's last word, or None after `timeout` seconds."""
        if self.result is None:
            self._changed.wait(timeout)
            if self.result is None:
                # A stop was asked for; the engine answers it with a result within two steps.
                self._changed.clear()
        return self.result


def storable(text: str) -> str:
    """PostgreSQL cannot store NUL, which a byte-level vocabulary can produce; nothing stores half a surrogate pair."""
    return text if text.isprintable() else re.sub("[\0\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)
