"""Tokens to text, token by token: whole characters only, up to the first stop string."""

from collections.abc import Container, Iterable

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from engine.stop_strings import StopStrings

_REPLACEMENT = "\ufffd"


class Detokenizer:
    """Text of a growing list of tokens. `context` are tokens before it that decide about a leading space."""

    def __init__(self, tokenizer: Tokenizer, context: Iterable[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(ids=list(context), skip_special_tokens=True)
        self._pending: list[int] = []

    def step(self, token: int) -> str:
        """The characters that this token completed."""
        self._pending.append(token)
        try:
            text = self._stream.step(self._tokenizer, token)
        except Exception:  # noqa: BLE001 - tokenizers raises no narrower type
            # Byte-fallback tokenizers redraw a run of bytes that turns out to be no UTF-8. What was shown stays.
            self._stream = DecodeStream(ids=[], skip_special_tokens=True)
            text = self._stream.step(self._tokenizer, self._pending)
        if text is None:
            return ""
        self._pending.clear()
        return text

    def flush(self) -> str:
        """What is still held back when no more tokens come, without the bytes of an unfinished character."""
        text = self._tokenizer.decode(self._pending, skip_special_tokens=True).rstrip(_REPLACEMENT)
        self._pending.clear()
        return text


class TextStream:
    """The visible text of one sequence, and how many tokens each piece of it took; `hidden` tokens have no text."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        stops: Iterable[str],
        context: Iterable[int] = (),
        hidden: Container[int] = frozenset(),
    ) -> None:
        self._detokenizer = Detokenizer(tokenizer, context)
        self._hidden = hidden
        self._stops = StopStrings(stops)
        self._shown: list[str] = []
        self._unreported = 0
        self.tokens = 0

    @property
    def stopped(self) -> bool:
        """A stop string was met."""
        return self._stops.met

    @property
    def text(self) -> str:
        return "".join(self._shown)

    def push(self, token: int) -> tuple[str, int]:
        """The text that this token made visible, and the tokens since the last visible text."""
        self.tokens += 1
        self._unreported += 1
        if token in self._hidden:
            return "", 0
        return self._show(self._stops.feed(self._detokenizer.step(token)))

    def flush(self) -> tuple[str, int]:
        """What was held back, when no more tokens come."""
        return self._show(self._stops.feed(self._detokenizer.flush()) + self._stops.flush())

    def _show(self, text: str) -> tuple[str, int]:
        if not text:
            return "", 0
        self._shown.append(text)
        tokens, self._unreported = self._unreported, 0
        return text, tokens
