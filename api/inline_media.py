"""Images that came inside a request: base64 and data: URLs -> bytes of a known type."""

import base64
import binascii
import re
from dataclasses import dataclass

from vlmq.errors import ErrorCode, VlmqError
from vlmq.sniff import HEAD_BYTES, IMAGE_TYPES, VIDEO_TYPES, MediaType, sniff

ACCEPTED_IMAGES = "PNG, JPEG, WebP, GIF or BMP"
ACCEPTED_VIDEOS = "MP4, MOV, WebM, Matroska, AVI or GIF"

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w.+-]+=[\w.+-]+)*)(;base64)?,", re.IGNORECASE)
_ALIASES = {"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "image/x-png": "image/png"}
_SAYS_NOTHING = ("", "application/octet-stream", "binary/octet-stream")


@dataclass(frozen=True, slots=True)
class InlineImage:
    data: bytes
    media_type: MediaType


def is_data_url(text: str) -> bool:
    return text[:5].lower() == "data:"


def read_image(text: str, *, limit_bytes: int, param: str) -> InlineImage:
    """Decode base64, with or without `data:image/…;base64,` before it.

    Raises:
        VlmqError: what is wrong with it.
    """
    declared = ""
    if is_data_url(text):
        match = _DATA_URL.match(text)
        if match is None or match[3] is None:
            message = "A data: URL must read data:image/TYPE;base64,DATA."
            raise VlmqError(ErrorCode.INVALID_REQUEST, message, param=param)
        declared = (match[1] or "").lower()
        text = text[match.end() :]
    data = _decode(text, limit_bytes, param)
    if not data:
        raise VlmqError(ErrorCode.IMAGE_INVALID, "The image is empty.", param=param)
    media_type = sniff(data[:HEAD_BYTES])
    if media_type is None or media_type not in IMAGE_TYPES:
        raise VlmqError(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE,
            f"This is {_words(media_type)}, not an image that can be read; {ACCEPTED_IMAGES} would be.",
            param=param,
        )
    if declared not in _SAYS_NOTHING and _ALIASES.get(declared, declared) != media_type:
        message = f"The data: URL says {declared}, but its bytes are {media_type}."
        raise VlmqError(ErrorCode.INVALID_REQUEST, message, param=param)
    return InlineImage(data, media_type)


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
        f"This is {_words(media_type)}. Images are taken as {ACCEPTED_IMAGES}; videos as {ACCEPTED_VIDEOS}.",
        param="file",
    )


def _decode(text: str, limit_bytes: int, param: str) -> bytes:
    # Encoders that follow MIME break lines.
    compact = "".join(text.split())
    if len(compact) // 4 * 3 - 2 > limit_bytes:
        message = f"The image has more than the {limit_bytes} bytes allowed."
        raise VlmqError(ErrorCode.MEDIA_TOO_LARGE, message, param=param)
    try:
        return base64.b64decode(compact, validate=True)
    except (binascii.Error, ValueError):
        message = "This is not base64 in the standard alphabet with its padding."
        raise VlmqError(ErrorCode.INVALID_REQUEST, message, param=param) from None


def _words(media_type: MediaType | None) -> str:
    return "of an unknown type" if media_type is None else str(media_type)
