"""What a scripted engine is told to do, in the words of a prompt."""

import json
from dataclasses import dataclass, fields
from typing import Any

from engine.types import PromptRequest
from vlmq.errors import ErrorCode, VlmqError


@dataclass(frozen=True, slots=True)
class Script:
    """How a scripted sequence goes; the `…_at` count its tokens from 1 and happen in place of that token.

    `tokens` is how many there are ("w1 w2 …", or the words of `text`, over and over), `step_ms` how long each takes.
    `hang_at` stops the whole engine, as a hung device would; `kill_at` ends the process with SIGKILL.
    """

    tokens: int | None = None
    step_ms: float = 1.0
    prefill_ms: float = 0.0
    text: str | None = None
    fail_at: int | None = None
    memory_error_at: int | None = None
    kill_at: int | None = None
    hang_at: int | None = None

    def words(self) -> list[str]:
        """The text of every token."""
        if self.text is None:
            words = [f"w{number}" for number in range(1, (self.tokens or 8) + 1)]
        else:
            words = self.text.split(" ")
            count = self.tokens or len(words)
            words = (words * (count // len(words) + 1))[:count]
        return [word if index == 0 else f" {word}" for index, word in enumerate(words)]


def read_script(text: str) -> Script:
    """The script that a message's text holds, or one that echoes it.

    Raises:
        VlmqError: INVALID_REQUEST when a JSON object is no script.
    """
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        return Script(text=f"echo: {text}")
    known = sorted(item.name for item in fields(Script))
    if unknown := set(values).difference(known):
        problem = f"The script has {min(unknown)}; it takes {', '.join(known)}"
        raise VlmqError(ErrorCode.INVALID_REQUEST, problem, param="messages")
    return Script(**values)


def last_user_text(prompt: PromptRequest) -> str:
    content: Any = next((m.get("content") for m in reversed(prompt.messages) if m.get("role") == "user"), None)
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content or [] if part.get("type") == "text")
