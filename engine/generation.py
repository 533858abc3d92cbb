"""The state of one running `generate()` call, told of every token."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from transformers import StoppingCriteria

from engine.choice import Choice, Vocabulary
from engine.logprobs import LogprobReader
from engine.options import Options
from engine.prompt import Prompt
from engine.types import Delta, Event, Finished, FinishReason, Sequence

# Tokens of a text to be continued that are enough to tell whether a space follows.
_CONTEXT = 8

OnStep = Callable[[Sequence, list[Event]], FinishReason | None]


class Generation(StoppingCriteria):
    """Turns tokens into events and decides when the sequence ends.

    It hangs in `generate()` as a stopping criterion, the one place that sees every token before the next step.
    `on_step` sends the step's events and says whether the sequence was cancelled or ran out of time. Of several texts,
    which grow side by side, the first is told while it grows.
    """

    def __init__(self, sequence: Sequence, vocabulary: Vocabulary, device: torch.device, on_step: OnStep) -> None:
        self._sequence = sequence
        self._vocabulary = vocabulary
        self._device = device
        self._verdicts: dict[tuple[bool, ...], torch.Tensor] = {}
        self._on_step = on_step
        self.options: Options = sequence.options
        parameters = sequence.parameters
        self.logprobs = LogprobReader(vocabulary, parameters.top_logprobs) if parameters.logprobs else None
        prompt: Prompt = sequence.inputs
        context = prompt.inputs["input_ids"][0, -_CONTEXT:].tolist() if prompt.continues else []
        self._choices = [
            Choice(vocabulary, self.options, sequence.max_new_tokens, context, logprobs=parameters.logprobs)
            for _ in range(self.options.texts)
        ]
        self._early: FinishReason | None = None
        self._started = time.monotonic()
        self._first_token: float | None = None
        self.seed: int | None = None

    @property
    def text(self) -> str:
        return self._choices[0].text

    @property
    def tokens(self) -> int:
        return sum(choice.tokens for choice in self._choices)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.BoolTensor:  # noqa: ARG002
        tokens: list[int] = input_ids[:, -1].tolist()
        entries = self.logprobs.read(tokens) if self.logprobs is not None else [None] * len(tokens)
        delta: list[Event] = []
        for index, (choice, token, entry) in enumerate(zip(self._choices, tokens, entries, strict=True)):
            if choice.reason is None:
                text, count = choice.push(token, entry)
                if text and index == 0:
                    delta.append(Delta(self._sequence.id, text, count))
        self._step(delta)
        return self._verdict(choice.reason is not None or self._early is not None for choice in self._choices)

    def take(self, output: torch.Tensor) -> None:
        """The tokens that `generate()` returned; all were seen as they came."""

    def flush(self) -> list[Event]:
        """The text that was held back, once no more tokens come."""
        for choice in self._choices[1:]:
            choice.flush()
        text, tokens = self._choices[0].flush()
        return [Delta(self._sequence.id, text, tokens)] if text else []

    def finished(self) -> Finished:
        now = time.monotonic()
        outputs = tuple(choice.output(self._early) for choice in self._choices)
        return Finished(
            id=self._sequence.id,
            finish_reason=self._reason(output.finish_reason for output in outputs),
            text=self.text,
            completion_tokens=self.tokens,
            seed=self.seed,
            first_token_s=None if self._first_token is None else self._first_token - self._started,
            generation_s=now - self._started,
            outputs=outputs,
        )

    def _step(self, events: list[Event]) -> None:
        if self._first_token is None:
            self._first_token = time.monotonic()
        early = self._on_step(self._sequence, events)
        # A text that has just ended by itself is not called cancelled.
        if any(choice.reason is None for choice in self._choices):
            self._early = self._early or early

    def _verdict(self, ended: Iterable[bool]) -> torch.BoolTensor:
        """Which rows end now, as `generate()` takes it; kept, since moving it to a device costs more than making it."""
        rows = tuple(ended)
        if rows not in self._verdicts:
            self._verdicts[rows] = torch.tensor(rows, device=self._device)
        verdict: torch.BoolTensor = self._verdicts[rows]  # type: ignore[assignment]
        return verdict

    def _reason(self, reasons: Iterable[FinishReason]) -> FinishReason:
        first = next(iter(reasons))
        return self._early or first
