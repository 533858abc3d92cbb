"""One sequence of the scripted engine, and how far it is."""

import os
import signal
import threading
import time
from dataclasses import dataclass, field

from engine.script import MediaSize, Script
from engine.stop_strings import StopStrings
from engine.types import Delta, Event, Failed, Finished, FinishReason, Output, Sequence, Started
from vlmq.errors import ErrorCode, VlmqError


@dataclass(slots=True, eq=False)
class ScriptedSequence:
    """`due` is when its next step comes, on `time.monotonic()`; `ended` is set with its last event."""

    sequence: Sequence
    due: float
    released: threading.Event
    ended: bool = False
    _stops: StopStrings = field(init=False)
    _words: list[str] = field(init=False)
    _text: str = ""
    _tokens: int = 0
    _unreported: int = 0
    _started: float | None = None
    _first_token: float | None = None

    def __post_init__(self) -> None:
        script: Script = self.sequence.inputs
        self._stops = StopStrings(self.sequence.parameters.stop)
        self._words = script.words()

    def step(self) -> list[Event]:
        """Begin, or give the next token."""
        sequence, script, now = self.sequence, self.sequence.inputs, time.monotonic()
        if self._started is None:
            self._started, self.due = now, now + script.prefill_ms / 1000
            return [Started(sequence.id, sequence.prompt_tokens, sequence.image_tokens, sequence.video_tokens)]
        if (error := self._mishap(script)) is not None:
            self.ended = True
            return [Failed(sequence.id, error, self._text, self._tokens)]
        self._first_token = self._first_token or now
        self.due = max(self.due + script.step_ms / 1000, now)
        shown = self._stops.feed(self._words[self._tokens])
        self._tokens += 1
        self._unreported += 1
        delta = self._show(shown)
        if self._stops.met or self._tokens == len(self._words):
            return delta + self.end("stop")
        return delta + self.end("length") if self._tokens == sequence.max_new_tokens else delta

    def end(self, reason: FinishReason) -> list[Event]:
        """Its last events."""
        delta = self._show(self._stops.flush())
        self.ended = True
        now = time.monotonic()
        started = now if self._started is None else self._started
        parameters = self.sequence.parameters
        outputs = (Output(self._text, reason, self._tokens),) * (parameters.num_return_sequences or 1)
        finished = Finished(
            id=self.sequence.id,
            finish_reason=reason,
            text=self._text,
            completion_tokens=self._tokens * len(outputs),
            seed=parameters.seed if parameters.do_sample else None,
            first_token_s=None if self._first_token is None else self._first_token - started,
            generation_s=now - started,
            outputs=outputs,
        )
        return [*delta, finished]

    def _mishap(self, script: Script) -> VlmqError | None:
        token = self._tokens + 1
        if token == script.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if token == script.hang_at:
            self.released.wait()
        if token == script.memory_error_at or (token == 1 and self._is_too_large(script)):
            return VlmqError(ErrorCode.OUT_OF_MEMORY, "The model ran out of memory on this prompt")
        if token == script.fail_at:
            return VlmqError(ErrorCode.ENGINE_ERROR, "The model failed while generating")
        return None

    def _is_too_large(self, script: Script) -> bool:
        """Whether the media are more than the script's memory takes."""
        frames, pixels = script.memory_error_above_frames, script.memory_error_above_pixels
        media: MediaSize = self.sequence.options
        return (frames is not None and media.frames > frames) or (pixels is not None and media.pixels > pixels)

    def _show(self, text: str) -> list[Event]:
        if not text:
            return []
        self._text += text
        tokens, self._unreported = self._unreported, 0
        return [Delta(self.sequence.id, text, tokens)]
