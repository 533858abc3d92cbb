"""A second reader of an open file that has a position of its own, without a second descriptor."""

import io
import os
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class OwnPosition(io.RawIOBase):
    """Reads `source` by offset, so that whoever else reads it is not moved."""

    def __init__(self, source: BinaryIO) -> None:
        self._descriptor = source.fileno()
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        count = os.preadv(self._descriptor, [buffer], self._position)
        self._position += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        starts = {
            os.SEEK_SET: 0,
            os.SEEK_CUR: self._position,
            os.SEEK_END: os.fstat(self._descriptor).st_size,
        }
        self._position = max(0, starts[whence] + offset)
        return self._position

    def tell(self) -> int:
        return self._position
