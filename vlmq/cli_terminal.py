"""Text from elsewhere, made harmless: no answer of a model may move the terminal's cursor or set its title."""

import json
import re
from typing import Any

# Lone surrogates cannot be written at all.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def harmless(text: str) -> str:
    """The text with every control character but newline and tab replaced."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def print_json(value: Any) -> None:
    """Print a value as one line of JSON, which escapes what a terminal would obey."""
    line = json.dumps(value, ensure_ascii=False)
    print(_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", line), flush=True)
