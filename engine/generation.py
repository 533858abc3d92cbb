"""The state of one running `generate()` call, told of every token."""

import time
from collections.abc import Callable
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import StoppingCriteria

from engine.detokenize import TextStream
from engine.prompt import Prompt
from engine.types import Delta, Event, Finished, FinishReason, Sequence

# Tokens of a text to be continued that are enough to tell whether a space follows.
_CONTEXT = 8

OnStep = Callable[[Sequence, list[Event]], FinishReason | None]


class Generation(StoppingCriteria):
    """Turns tokens into events and decides when the sequence ends.

    It hangs in `generate()` as a stopping criterion, the one place that sees every token before the next step.
    `on_step` sends the step's events and says whether the sequence was cancelled or ran out of time.
    """

    def __init__(
        self,
        sequence: Sequence,
        tokenizer: Tokenizer,
        end_tokens: frozenset[int],
        device: torch.device,
        on_step: OnStep,
    ) -> None:
        self._sequence = sequence
        self._end_tokens = end_tokens
        self._on_step = on_step
        prompt: Prompt = sequence.inputs
        context = prompt.inputs["input_ids"][0, -_CONTEXT:].tolist() if prompt.continues else ()
        self._stream = TextStream(tokenizer, sequence.parameters.stop, context)
        self._verdicts = {ends: torch.tensor([ends], device=device) for ends in (False, True)}
        self._reason: FinishReason | None = None
        self._started = time.monotonic()
        self._first_token: float | None = None
        self.seed: int | None = None

    @property
    def text(self) -> str:
        return self._stream.text

    @property
    def tokens(self) -> int:
        return self._stream.tokens

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.BoolTensor:  # noqa: ARG002
        token = int(input_ids[0, -1])
        if self._first_token is None:
            self._first_token = time.monotonic()
        text, tokens = self._stream.push(token)
        delta: list[Event] = [Delta(self._sequence.id, text, tokens)] if text else []
        early = self._on_step(self._sequence, delta)
        self._reason = self._natural_end(token) or early
        verdict: torch.BoolTensor = self._verdicts[self._reason is not None]  # type: ignore[assignment]
        return verdict

    def flush(self) -> list[Event]:
        """The text that was held back, once no more tokens come."""
        text, tokens = self._stream.flush()
        return [Delta(self._sequence.id, text, tokens)] if text else []

    def finished(self) -> Finished:
        now = time.monotonic()
        return Finished(
            id=self._sequence.id,
            finish_reason="stop" if self._stream.stopped else self._reason or "length",
            text=self.text,
            completion_tokens=self.tokens,
            seed=self.seed,
            first_token_s=None if self._first_token is None else self._first_token - self._started,
            generation_s=now - self._started,
        )

    def _natural_end(self, token: int) -> FinishReason | None:
        if token in self._end_tokens or self._stream.stopped:
            return "stop"
        return "length" if self._stream.tokens >= self._sequence.max_new_tokens else None
