"""How long each frame of an animated PNG or WebP is shown, read from its chunks without decoding a pixel."""

import os
import struct
from array import array
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from media.webp_size import HEAD_BYTES, webp_size
from vlmq.errors import ErrorCode, VlmqError
from vlmq.sniff import VIDEO_WORDS, MediaType, is_still

MILLISECOND = 0.001
# Players take a shorter time for none at all, and none for this.
SHORTEST_S = 0.011
WITHOUT_TIME_S = 0.1

Size = tuple[int, int]


def frame_durations(media_type: MediaType, source: BinaryIO) -> tuple[Size, Sequence[float]]:
    """Width and height, and the seconds of each frame, of which there is at least one.

    Raises:
        VlmqError: `video_invalid`, or `unsupported_media_type` when it is a still image.
    """
    source.seek(0)
    size, durations = _png(source) if media_type is MediaType.PNG else _webp(source)
    if size is None:
        message = f"The file is {media_type}, a still image; a video would be {VIDEO_WORDS}."
        raise VlmqError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message)
    if not durations:
        raise _invalid("has no frames")
    return size, durations


def _png(source: BinaryIO) -> tuple[Size | None, Sequence[float]]:
    size, announced = (0, 0), None
    durations = array("d")
    for name, head in _png_chunks(source):
        if name == b"IHDR":
            width, height = _unpack(">II", head)
            size = width, height
        elif name == b"acTL" and announced is None:
            (announced,) = _unpack(">I", head)
        elif name == b"IDAT" and announced is None:
            return None, durations
        elif name == b"fcTL":
            over, under = _unpack(">HH", head[20:])
            durations.append(_shown(over / (under or 100)))
    if announced is not None and announced != len(durations):
        raise _invalid(f"is damaged or truncated: it has {len(durations)} of {announced} frames")
    return size, durations


def _png_chunks(source: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """The name of each chunk, and its first bytes."""
    end, at = os.fstat(source.fileno()).st_size, 8
    while True:
        source.seek(at)
        head = source.read(8 + 26)
        at += 12 + int.from_bytes(head[:4], "big")
        if len(head) < 8 or at > end:
            raise _invalid("is truncated: its end is missing")
        yield head[4:8], head[8:]
        if head[4:8] == b"IEND":
            return


def _webp(source: BinaryIO) -> tuple[Size | None, Sequence[float]]:
    head = source.read(HEAD_BYTES)
    durations = array("d")
    end = 8 + int.from_bytes(head[4:8], "little")
    if end > os.fstat(source.fileno()).st_size:
        raise _invalid("is truncated: its end is missing")
    if is_still(head):
        return None, durations
    size = webp_size(head) or (0, 0)
    at = 12
    while at + 8 <= end:
        source.seek(at)
        chunk = source.read(8 + 16)
        if chunk[:4] == b"ANMF":
            durations.append(_shown(int.from_bytes(chunk[20:23], "little") * MILLISECOND))
        length = int.from_bytes(chunk[4:8], "little")
        at += 8 + length + length % 2
    if at > end:
        raise _invalid("is damaged: its last chunk reaches beyond its end")
    return size, durations


def _shown(seconds: float) -> float:
    return seconds if seconds >= SHORTEST_S else WITHOUT_TIME_S


def _unpack(layout: str, data: bytes) -> tuple[int, ...]:
    if len(data) < struct.calcsize(layout):
        raise _invalid("is damaged: a chunk is too short")
    return struct.unpack_from(layout, data)


def _invalid(what: str) -> VlmqError:
    return VlmqError(ErrorCode.VIDEO_INVALID, f"The video {what}.")
