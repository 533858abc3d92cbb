"""How much is missing at the end of a file whose container says how long it is."""

import os
from typing import BinaryIO

from vlmq.sniff import MediaType

_SEGMENT = b"\x18\x53\x80\x67"


def missing_bytes(media_type: MediaType, source: BinaryIO) -> int:
    """Bytes that the container announces and the file lacks; 0 where the format does not say.

    The demuxers of Matroska and AVI take the end of the file for the end of the video. MP4 is not asked here: its
    index says where each frame lies.
    """
    size = os.fstat(source.fileno()).st_size
    source.seek(0)
    head = source.read(4096)
    source.seek(0)
    announced = 0
    if media_type in (MediaType.WEBM, MediaType.MATROSKA):
        announced = _matroska_size(head)
    elif media_type is MediaType.AVI:
        announced = 8 + int.from_bytes(head[4:8], "little")
    return max(0, announced - size)


def _matroska_size(head: bytes) -> int:
    header_length, header_start = _read_length(head, 4)
    segment = header_start + (header_length or 0)
    if head[segment : segment + 4] != _SEGMENT:
        return 0
    length, start = _read_length(head, segment + 4)
    return 0 if length is None else start + length


def _read_length(data: bytes, at: int) -> tuple[int | None, int]:
    """An EBML length and the offset behind it. None: unknown, as recorders write it that cannot seek back."""
    if at >= len(data) or data[at] == 0:
        return None, at
    width = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1)
    return None if value == (1 << 7 * width) - 1 else value, at + width
