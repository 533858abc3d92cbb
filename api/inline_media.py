"""Images and videos that came inside a request: base64 and data: URLs -> bytes of a known type."""

import base64
import re
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from vlmq.errors import ErrorCode, VlmqError
from vlmq.sniff import (
    HEAD_BYTES,
    IMAGE_TYPES,
    IMAGE_WORDS,
    VIDEO_TYPES,
    VIDEO_WORDS,
    MediaType,
    is_still,
    sniff,
)

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w.+-]+=[\w.+-]+)*)(;base64)?,", re.IGNORECASE)
_ALIASES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "image/apng": "image/png",
    "image/vnd.mozilla.apng": "image/png",
    "video/mov": "video/quicktime",
    "video/mkv": "video/x-matroska",
    "video/matroska": "video/x-matroska",
    "video/avi": "video/x-msvideo",
    "video/m4v": "video/mp4",
    "video/x-m4v": "video/mp4",
}
_KINDS = {
    "image": (ErrorCode.IMAGE_INVALID, IMAGE_TYPES, IMAGE_WORDS),
    "video": (ErrorCode.VIDEO_INVALID, VIDEO_TYPES, VIDEO_WORDS),
}
_SAYS_NOTHING = ("", "application/octet-stream", "binary/octet-stream")


@dataclass(frozen=True, slots=True)
class InlineFile:
    """A file inside a request; `chunks` gives its bytes, as often as it is asked."""

    media_type: MediaType
    chunks: Callable[[], Iterable[bytes]]


def is_data_url(text: str) -> bool:
    return text[:5].lower() == "data:"


def read_inline(text: str, *, kind: str, limit_bytes: int, param: str) -> InlineFile:
    """Decode the base64 of an image or a video (`kind`), with or without `data:…/…;base64,` before it.

    Raises:
        VlmqError: what is wrong with it.
    """
    declared = ""
    if is_data_url(text):
        match = _DATA_URL.match(text)
        if match is None or match[3] is None:
            message = f"A data: URL must read data:{kind}/TYPE;base64,DATA."
            raise VlmqError(ErrorCode.INVALID_REQUEST, message, param=param)
        declared = (match[1] or "").lower()
        text = text[match.end() :]
    data = _decode(text, kind, limit_bytes, param)
    media_type = inline_type(data[:HEAD_BYTES], kind=kind, param=param)
    if declared not in _SAYS_NOTHING and _ALIASES.get(declared, declared) != media_type:
        message = f"The data: URL says {declared}, but its bytes are {media_type}."
        raise VlmqError(ErrorCode.INVALID_REQUEST, message, param=param)
    return InlineFile(media_type, lambda: (data,))


def inline_type(head: bytes, *, kind: str, param: str) -> MediaType:
    """The type of an image or a video (`kind`) that begins with `head`.

    Raises:
        VlmqError: there are no bytes, or UNSUPPORTED_MEDIA_TYPE.
    """
    empty, accepted, words = _KINDS[kind]
    if not head:
        raise VlmqError(empty, f"The {kind} is empty.", param=param)
    media_type = sniff(head)
    if kind == "video" and is_still(head):
        message = f"This is {media_type}, a still image; a video would be {words}."
        raise VlmqError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message, param=param)
    if media_type is not None and media_type in accepted:
        return media_type
    noun = "an image" if kind == "image" else "a video"
    message = f"This is {_words(media_type)}, not {noun} that can be read; {words} would be."
    raise VlmqError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message, param=param)


def accepted_type(head: bytes) -> MediaType:
    """The type of an upload that begins with `head`.

    Raises:
        VlmqError: UNSUPPORTED_MEDIA_TYPE when it is neither an image nor a video that can be read.
    """
    media_type = sniff(head)
    if media_type is not None and media_type in IMAGE_TYPES | VIDEO_TYPES:
        return media_type
    raise VlmqError(
        ErrorCode.UNSUPPORTED_MEDIA_TYPE,
        f"This is {_words(media_type)}. Images are taken as {IMAGE_WORDS}; videos as {VIDEO_WORDS}.",
        param="file",
    )


def _decode(text: str, kind: str, limit_bytes: int, param: str) -> bytes:
    try:
        # Encoders that follow MIME break lines; splitting them would make an object of each.
        compact = text.encode("ascii").translate(None, string.whitespace.encode())
        if len(compact) // 4 * 3 - 2 > limit_bytes:
            message = f"The {kind} has more than the {limit_bytes} bytes allowed."
            raise VlmqError(ErrorCode.MEDIA_TOO_LARGE, message, param=param)
        return base64.b64decode(compact, validate=True)
    except ValueError:
        message = "This is not base64 in the standard alphabet with its padding."
        raise VlmqError(ErrorCode.INVALID_REQUEST, message, param=param) from None


def _words(media_type: MediaType | None) -> str:
    return "of an unknown type" if media_type is None else str(media_type)
