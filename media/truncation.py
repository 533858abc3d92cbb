"""How much is missing at the end of a file whose container says how long it is."""

import os
from typing import BinaryIO

from vlmq.sniff import MediaType

_SEGMENT = b"\x18\x53\x80\x67"


def missing_bytes(media_type: MediaType, source: BinaryIO) -> int:
    """Bytes that the container announces and the file lacks; 0 where the format does not say.

    The demuxers of Matroska and AVI take the end of the file for the end of the video. Of an MP4 only the index must
    be there: it says where each frame lies, and those before the cut are good.
    """
    size = os.fstat(source.fileno()).st_size
    if media_type in (MediaType.MP4, MediaType.QUICKTIME):
        announced = _mp4_index_end(source, size)
    elif media_type in (MediaType.WEBM, MediaType.MATROSKA):
        announced = _matroska_size(_head(source))
    elif media_type is MediaType.AVI:
        announced = 8 + int.from_bytes(_head(source)[4:8], "little")
    else:
        announced = 0
    source.seek(0)
    return max(0, announced - size)


def _head(source: BinaryIO) -> bytes:
    source.seek(0)
    return source.read(4096)


def _mp4_index_end(source: BinaryIO, size: int) -> int:
    """Where the index ends, or the box in front of it that reaches beyond the end of the file; 0 without any."""
    start = 0
    while start + 8 <= size:
        source.seek(start)
        header = source.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < 8:
            return 0
        start += length
        if header[4:8] == b"moov" or start > size:
            return start
    return 0


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
