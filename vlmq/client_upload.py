"""A file as a multipart form that is read while it is sent: requests by itself would hold all of it in memory."""

import os
import secrets
from collections.abc import Iterator
from typing import BinaryIO

from urllib3.fields import RequestField

CHUNK_BYTES = 256 * 1024


class FileForm:
    """A body with one field `file`, for requests' `data`: what has a length and can be iterated over is sent in pieces.

    `file` must be one that can seek, and is read once.
    """

    def __init__(self, name: str, file: BinaryIO) -> None:
        boundary = secrets.token_hex(16)
        field = RequestField("file", b"", filename=name)
        field.make_multipart()
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        # The name of a file need not be text; here it is only a label.
        self._head = f"--{boundary}\r\n{field.render_headers()}".encode(errors="replace")
        self._tail = f"\r\n--{boundary}--\r\n".encode()

    def __len__(self) -> int:
        return len(self._head) + self._size + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        self._file.seek(0)
        left = self._size
        # No further than its length, should somebody be writing to it.
        while chunk := self._file.read(min(CHUNK_BYTES, left)):
            left -= len(chunk)
            yield chunk
        yield self._tail
