"""The memory that a decoding child fills and its parent maps."""

import ctypes
import errno
import math
import mmap
import os

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

_libc = ctypes.CDLL(None)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_MAP_FAILED = ctypes.c_void_p(-1).value


class PixelSink:
    """A memory file of the parent's, of which the child makes one array."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._mapped: tuple[int, int] | None = None
        self.shape: tuple[int, ...] = ()

    def allocate(self, shape: tuple[int, ...]) -> Pixels:
        """An array of zeros that the parent will see; one that was allocated before is gone.

        Raises:
            MemoryError: it is larger than the child's limits allow.
        """
        size = math.prod(shape)
        if self._mapped is not None:
            _libc.munmap(*self._mapped)
            self._mapped = None
        try:
            os.ftruncate(self._descriptor, 0)
            os.ftruncate(self._descriptor, size)
        except OSError as error:
            if error.errno in (errno.ENOMEM, errno.EFBIG, errno.ENOSPC):
                raise MemoryError from error
            raise
        # Python's own mmap duplicates the descriptor, and a child may not have another.
        address = _libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, self._descriptor, 0)
        if address == _MAP_FAILED:
            raise MemoryError
        self._mapped = address, size
        self.shape = shape
        return np.frombuffer(memoryview((ctypes.c_uint8 * size).from_address(address)), np.uint8).reshape(shape)


def map_pixels(descriptor: int, shape: tuple[int, ...]) -> Pixels:
    """The child's array as the parent's own: writable, private, unmapped when the array goes.

    Raises:
        ValueError: the file holds less than `shape` says.
    """
    size = math.prod(shape)
    if size <= 0 or os.fstat(descriptor).st_size < size:
        raise ValueError("the decoder announced more pixels than it delivered")
    memory = mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY)
    return np.frombuffer(memory, np.uint8).reshape(shape)
