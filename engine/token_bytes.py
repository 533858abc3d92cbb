"""The bytes that a token adds to a text, which need not be whole characters."""

import json
import re

from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

from engine.choice import Vocabulary

_FALLBACK = re.compile(r"<0x([0-9A-F]{2})>")


class TokenBytes:
    """Of one tokenizer; byte-level vocabularies and those that fall back to bytes are read byte by byte."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._tokenizer, self._hidden = vocabulary.tokenizer, vocabulary.hidden
        self._alphabet = _alphabet() if _is_byte_level(self._tokenizer) else {}

    def of(self, token: int) -> bytes:
        """Empty for hidden tokens and for ids that the vocabulary lacks."""
        written = None if token in self._hidden else self._tokenizer.id_to_token(token)
        if written is None:
            return b""
        if (fallback := _FALLBACK.fullmatch(written)) is not None:
            return bytes.fromhex(fallback[1])
        if self._alphabet and all(letter in self._alphabet for letter in written):
            return bytes(self._alphabet[letter] for letter in written)
        # A word's mark for its leading space would be lost at the beginning of a text.
        if written.startswith("▁"):
            return written.replace("▁", " ").encode()
        return self._tokenizer.decode([token]).encode()


def _is_byte_level(tokenizer: Tokenizer) -> bool:
    decoder = json.loads(tokenizer.to_str())["decoder"] or {}
    return any(step["type"] == "ByteLevel" for step in (decoder, *decoder.get("decoders", ())) if step)


def _alphabet() -> dict[str, int]:
    """The letters that byte-level vocabularies write bytes with: printable Latin-1 as it is, the rest in order."""
    plain = [byte for byte in range(256) if chr(byte) in set(ByteLevel.alphabet())]
    rest = [byte for byte in range(256) if byte not in plain]
    letters = {chr(byte): byte for byte in plain}
    return letters | {chr(256 + place): byte for place, byte in enumerate(rest)}
