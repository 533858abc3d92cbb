"""What `vlmq doctor` finds."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look brought; `advice` says what to do about it."""

    subject: str
    level: Literal["ok", "warn", "fail"]
    message: str
    advice: str = ""
