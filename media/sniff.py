"""What the bytes are, and the words for a file that is something else than it should be."""

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

__all__ = ["HEAD_BYTES", "IMAGE_TYPES", "VIDEO_TYPES", "MediaType", "image_type", "sniff", "video_type"]


def image_type(head: bytes, *, from_url: bool, param: str | None) -> MediaType:
    """The type of an image.

    Raises:
        VlmqError: `unsupported_media_type` when the bytes are something else, `image_invalid` when there are none.
    """
    if not head:
        raise VlmqError(ErrorCode.IMAGE_INVALID, "The image is empty.", param=param)
    return _one_of(IMAGE_TYPES, head, "an image", IMAGE_WORDS, from_url=from_url, param=param)


def video_type(head: bytes, *, from_url: bool, param: str | None) -> MediaType:
    """The type of a video; raises like `image_type`."""
    if not head:
        raise VlmqError(ErrorCode.VIDEO_INVALID, "The video is empty.", param=param)
    if is_still(head):
        message = f"The file is {sniff(head)}, a still image; a video would be {VIDEO_WORDS}."
        raise VlmqError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message, param=param)
    return _one_of(VIDEO_TYPES, head, "a video", VIDEO_WORDS, from_url=from_url, param=param)


def _one_of(
    allowed: frozenset[MediaType], head: bytes, noun: str, right: str, *, from_url: bool, param: str | None
) -> MediaType:
    found = sniff(head)
    if found in allowed and found is not None:
        return found
    if found is MediaType.HTML and from_url:
        message = f"The URL answered with a web page ({found}), not {noun}."
    elif found is not None:
        message = f"The file is {found}, not {noun} that can be read; {right} would be."
    else:
        message = f"The file is not {noun} that can be read; {right} would be."
    raise VlmqError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message, param=param)
