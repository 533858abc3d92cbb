"""Text from elsewhere, made harmless: no answer of a model may move the terminal's cursor, set its title or turn the
direction of what follows."""

import json
import re
from typing import Any

# Lone surrogates cannot be written at all. The marks that Arabic and Hebrew need turn nothing around and stay.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(text: str) -> str:
    """The text with every control character but newline and tab replaced, those of direction included."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def print_json(value: Any) -> None:
    """Print a value as one line of JSON, which escapes what a terminal would obey."""
    line = json.dumps(value, ensure_ascii=False)
    print(_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", line), flush=True)
