"""One of the texts that a sequence was asked for, as its tokens come."""

from collections.abc import Container
from dataclasses import dataclass

from tokenizers import Tokenizer

from engine.detokenize import TextStream
from engine.options import Options
from engine.types import FinishReason, Output, TokenLogprob


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """How tokens become text: `hidden` ones do not."""

    tokenizer: Tokenizer
    hidden: frozenset[int]


class Choice:
    """Takes tokens until the text has ended by itself; what comes after is padding and is left out."""

    def __init__(
        self, vocabulary: Vocabulary, options: Options, max_new_tokens: int, context: list[int], *, logprobs: bool
    ) -> None:
        self._ends: Container[int] = options.end_tokens
        self._max_new_tokens = max_new_tokens
        # An end token that reads as ordinary text, such as a full stop that was named as one, is a mark all the same.
        hidden = vocabulary.hidden | options.end_tokens
        self._stream = TextStream(vocabulary.tokenizer, options.stops, context, hidden)
        self._logprobs: list[TokenLogprob] | None = [] if logprobs else None
        self.reason: FinishReason | None = None

    @property
    def text(self) -> str:
        return self._stream.text

    @property
    def tokens(self) -> int:
        return self._stream.tokens

    def push(self, token: int, logprob: TokenLogprob | None = None) -> tuple[str, int]:
        """The text that this token made visible, and the tokens since the last visible text."""
        if self._logprobs is not None and logprob is not None:
            self._logprobs.append(logprob)
        shown = self._stream.push(token)
        if token in self._ends or self._stream.stopped:
            self.reason = "stop"
        elif self._stream.tokens >= self._max_new_tokens:
            self.reason = "length"
        return shown

    def flush(self) -> tuple[str, int]:
        """What was held back, when no more tokens come."""
        return self._stream.flush()

    def output(self, early: FinishReason | None) -> Output:
        """What became of it; `early` is why the whole sequence was ended, if it was."""
        # What was held back may hold a stop string once it is complete.
        reason = "stop" if self._stream.stopped else self.reason or early or "length"
        logprobs = None if self._logprobs is None else tuple(self._logprobs)
        return Output(self.text, reason, self.tokens, logprobs)
