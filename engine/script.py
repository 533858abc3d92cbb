"""What a scripted engine is told to do, in the words of a prompt."""

import json
from dataclasses import dataclass, fields
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from engine.types import PromptRequest
from vlmq.errors import ErrorCode, VlmqError

MAX_TOKENS = 1_000_000
DAY_MS = 24 * 3600 * 1000

_Milliseconds = Annotated[float, Field(ge=0, le=DAY_MS, allow_inf_nan=False)]
_Place = Annotated[int, Field(ge=1)]
_Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class MediaSize:
    """How much there is to look at: frames of all videos, pixels of all images and frames."""

    frames: int
    pixels: int


@dataclass(frozen=True, slots=True)
class Script:
    """How a scripted sequence goes; the `…_at` count its tokens from 1 and happen in place of that token.

    `tokens` is how many there are ("w1 w2 …", or the words of `text`, over and over), `step_ms` how long each takes.
    `memory_error_above_frames` and `…_pixels` run out of memory, in place of the first token, on more media than that:
    frames of all videos, and pixels of all images and frames.
    `hang_at` stops the whole engine, as a hung device would; `kill_at` ends the process with SIGKILL.
    """

    tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    step_ms: _Milliseconds = 1.0
    prefill_ms: _Milliseconds = 0.0
    text: str | None = None
    fail_at: _Place | None = None
    memory_error_at: _Place | None = None
    memory_error_above_frames: _Count | None = None
    memory_error_above_pixels: _Count | None = None
    kill_at: _Place | None = None
    hang_at: _Place | None = None

    def words(self) -> list[str]:
        """The text of every token."""
        if self.text is None:
            words = [f"w{number}" for number in range(1, (self.tokens or 8) + 1)]
        else:
            words = self.text.split(" ")
            count = self.tokens or len(words)
            words = (words * (count // len(words) + 1))[:count]
        return [word if index == 0 else f" {word}" for index, word in enumerate(words)]


_SCRIPT = TypeAdapter(Script)


def read_script(text: str) -> Script:
    """The script that a message's text holds, or one that echoes it.

    Raises:
        VlmqError: INVALID_REQUEST when a JSON object is no script.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        return Script(text=f"echo: {text}")
    known = sorted(item.name for item in fields(Script))
    if unknown := set(values).difference(known):
        problem = f"The script has {min(unknown)}; it takes {', '.join(known)}"
        raise VlmqError(ErrorCode.INVALID_REQUEST, problem, param="messages")
    try:
        # Strict JSON takes no "5" for a number, and its own rules for Python's objects would ask for a `Script`.
        return _SCRIPT.validate_json(text, strict=True)
    except ValidationError as error:
        item = error.errors(include_url=False, include_input=False)[0]
        names = ".".join(str(name) for name in item["loc"])
        problem = f"The script's {names or 'JSON'} cannot be used: {item['msg']}"
        raise VlmqError(ErrorCode.INVALID_REQUEST, problem, param="messages") from None


def media_size(prompt: PromptRequest) -> MediaSize:
    pictures = [*prompt.images, *(clip.frames for clip in prompt.videos)]
    return MediaSize(sum(len(clip.frames) for clip in prompt.videos), sum(picture.size // 3 for picture in pictures))


def last_user_text(prompt: PromptRequest) -> str:
    return text_of(next((message for message in reversed(prompt.messages) if message.get("role") == "user"), {}))


def text_of(message: dict[str, Any]) -> str:
    content: Any = message.get("content")
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content or [] if part.get("type") == "text")
