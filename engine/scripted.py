"""An engine that does what the prompt says: for tests of everything around an engine, without torch.

It runs any number of sequences together in one step loop, as a batching engine does. The last user message's text is
a `Script` in JSON; any other text is answered with an echo.
"""

import math
import queue
import threading
import time

from engine.parameters import check_parameters, fit_into_context
from engine.script import last_user_text, media_size, read_script, text_of
from engine.scripted_sequence import ScriptedSequence
from engine.types import (
    CheckpointSettings,
    EngineDescription,
    Event,
    FinishReason,
    GenerationParameters,
    PromptRequest,
    RenderTemplate,
    Sequence,
    TemplateCall,
)
from vlmq.errors import ErrorCode, VlmqError

# A script is certain, so what weighs chances leaves it as it is; the rest of these it would have to disobey.
_NOT_HONOURED = frozenset(
    {
        "eos_token_id", "forced_eos_token_id", "exponential_decay_length_penalty", "repetition_penalty",
        "encoder_repetition_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words",
        "bad_words_ids", "sequence_bias", "suppress_tokens", "begin_suppress_tokens", "num_beams", "logprobs",
        "watermarking_config",
    }
)  # fmt: skip
IMAGE_TOKENS = 16
FRAME_TOKENS = 4
_DEFAULT_CONTEXT = 32768
_CLOSE_S = 30.0


class ScriptedEngine:
    """An `Engine` without a model."""

    def __init__(self, settings: CheckpointSettings, render: RenderTemplate | None = None) -> None:
        self._render = render
        self._description = EngineDescription(
            engine="scripted",
            checkpoint=settings.checkpoint,
            revision="scripted",
            architecture="scripted",
            device="none",
            dtype="none",
            attn_implementation="none",
            attn_reason="there is no model",
            weight_bytes=0,
            max_context=settings.max_model_len or _DEFAULT_CONTEXT,
            modalities=settings.modalities,
        )
        self._changed = threading.Condition()
        self._alive: dict[str, ScriptedSequence] = {}
        self._cancelled: set[str] = set()
        self._closed = threading.Event()
        self._last_step = time.monotonic()
        self._events: queue.SimpleQueue[list[Event]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="scripted engine", daemon=True)
        self._thread.start()

    @property
    def description(self) -> EngineDescription:
        return self._description

    def prepare(
        self, id: str, prompt: PromptRequest, parameters: GenerationParameters, *, deadline: float | None = None
    ) -> Sequence:
        parameters = check_parameters(parameters)
        _check_honoured(parameters)
        self._check_modalities(prompt)
        text = last_user_text(prompt)
        image_tokens = IMAGE_TOKENS * len(prompt.images)
        video_tokens = FRAME_TOKENS * sum(len(clip.frames) for clip in prompt.videos)
        prompt_tokens = len(text.split()) + image_tokens + video_tokens
        script = read_script(text)
        rendered = self._rendered(prompt)
        room = fit_into_context(parameters, len(script.words()), prompt_tokens, self._description.max_context)
        return Sequence(
            id=id,
            deadline=deadline,
            parameters=parameters,
            prompt_tokens=prompt_tokens,
            image_tokens=image_tokens,
            video_tokens=video_tokens,
            max_new_tokens=room,
            inputs=script,
            options=media_size(prompt),
            prompt=rendered,
            lead=rendered if prompt.return_full_text else "",
        )

    def submit(self, sequence: Sequence) -> None:
        with self._changed:
            if self._closed.is_set():
                raise VlmqError(ErrorCode.UNAVAILABLE, "The engine takes no more work")
            if sequence.id in self._alive:
                raise ValueError(f"sequence {sequence.id} is already alive")
            now = time.monotonic()
            if not self._alive:
                self._last_step = now
            self._alive[sequence.id] = ScriptedSequence(sequence, now, self._closed)
            self._changed.notify()

    def cancel(self, id: str) -> None:
        with self._changed:
            if id in self._alive:
                self._cancelled.add(id)
                self._changed.notify()

    def next_step(self, timeout: float) -> list[Event]:
        try:
            return self._events.get(timeout=timeout)
        except queue.Empty:
            return []

    def last_progress(self) -> float:
        if not self._thread.is_alive() and not self._closed.is_set():
            return -math.inf
        return self._last_step if self._alive else time.monotonic()

    def close(self) -> None:
        with self._changed:
            self._closed.set()
            self._changed.notify()
        self._thread.join(_CLOSE_S)

    def _rendered(self, prompt: PromptRequest) -> str:
        """What the request's template makes of the chat; without one, or without a renderer, just the texts."""
        if prompt.chat_template is not None and self._render is not None:
            variables = dict(prompt.template_kwargs)
            return self._render(TemplateCall(prompt.chat_template, prompt.messages, variables, prompt.continues))
        return "\n".join(f"{message['role']}: {text_of(message)}" for message in prompt.messages)

    def _check_modalities(self, prompt: PromptRequest) -> None:
        if not prompt.messages:
            raise VlmqError(ErrorCode.INVALID_REQUEST, "messages takes at least one message", param="messages")
        for kind, given in (("image", prompt.images), ("video", prompt.videos)):
            if given and kind not in self._description.modalities:
                raise VlmqError(ErrorCode.UNSUPPORTED_MODALITY, f"This model does not take a {kind}", param="messages")

    def _run(self) -> None:
        while due := self._wait_for_due():
            events: list[Event] = []
            for live in due:
                early = self._early_end(live.sequence)
                events += live.step() if early is None else live.end(early)
            self._last_step = time.monotonic()
            with self._changed:
                for live in due:
                    if live.ended:
                        del self._alive[live.sequence.id]
                        self._cancelled.discard(live.sequence.id)
            if events:
                self._events.put(events)

    def _wait_for_due(self) -> list[ScriptedSequence]:
        """All that have a step to take now, in the order they came; none when closed and empty."""
        with self._changed:
            while True:
                now = time.monotonic()
                due = [live for live in self._alive.values() if self._next_due(live) <= now]
                if due or (self._closed.is_set() and not self._alive):
                    return due
                first = min(map(self._next_due, self._alive.values()), default=None)
                self._changed.wait(None if first is None else first - now)

    def _next_due(self, live: ScriptedSequence) -> float:
        if self._closed.is_set() or live.sequence.id in self._cancelled:
            return -math.inf
        return min(live.due, math.inf if live.sequence.deadline is None else live.sequence.deadline)

    def _early_end(self, sequence: Sequence) -> FinishReason | None:
        if self._closed.is_set() or sequence.id in self._cancelled:
            return "cancelled"
        if sequence.deadline is not None and time.monotonic() >= sequence.deadline:
            return "deadline"
        return None


def _check_honoured(parameters: GenerationParameters) -> None:
    nothing = GenerationParameters()
    for name in sorted(_NOT_HONOURED):
        value = getattr(parameters, name)
        does_nothing = value == getattr(nothing, name) or (value == 1 and value is not True)
        if not does_nothing:
            problem = f"The scripted engine cannot honour {name}; leave it out"
            raise VlmqError(ErrorCode.UNSUPPORTED_PARAMETER, problem, param=f"generation.{name}")
