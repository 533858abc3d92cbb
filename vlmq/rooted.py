"""Files of the server that a job names by path: below one folder, and never through a link."""

import os
import stat
from pathlib import Path, PurePosixPath

from vlmq.errors import ErrorCode, VlmqError

MAX_PATH_CHARS = 4096


def relative_path(root: Path | None, path: str, *, param: str) -> str:
    """`path` below `root`, by its text alone; both a relative path and an absolute one that begins with the root do.

    Raises:
        VlmqError: `invalid_request`, also when the service has no root.
    """
    if root is None:
        message = "This service reads no files of its own; an operator may allow a folder with VLMQ_MEDIA_ROOT."
        raise _refused(message, param)
    if not path or "\x00" in path or len(path) > MAX_PATH_CHARS:
        raise _refused("This is no path.", param)
    pure = PurePosixPath(path)
    if ".." in pure.parts:
        raise _refused("A path must not hold `..`.", param)
    if pure.is_absolute():
        try:
            pure = pure.relative_to(PurePosixPath(root.absolute()))
        except ValueError:
            message = "The path lies outside the folder that the service may read; give it relative to that folder."
            raise _refused(message, param) from None
    if not pure.parts:
        raise _refused("The path names the folder itself; name a file in it.", param)
    return str(pure)


def open_beneath(root: Path, relative: str, *, param: str) -> int:
    """A descriptor of the regular file, opened folder by folder so that no link can lead away at any step.

    Raises:
        VlmqError: `invalid_request` for a link or anything but a regular file, FILE_NOT_FOUND.
    """
    *folders, name = PurePosixPath(relative).parts
    try:
        # The root is the operator's, and may be a link.
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        raise VlmqError(ErrorCode.UNAVAILABLE, "The folder of media cannot be read right now.", param=param) from None
    try:
        for part in folders:
            inner = _open(part, os.O_RDONLY | os.O_DIRECTORY, folder, param)
            os.close(folder)
            folder = inner
        # Non-blocking: opening a FIFO would wait for its writer.
        descriptor = _open(name, os.O_RDONLY | os.O_NONBLOCK, folder, param)
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _refused("The path names no regular file.", param)
    return descriptor


def _open(name: str, flags: int, folder: int, param: str) -> int:
    if name == "..":
        raise _refused("A path must not hold `..`.", param)
    try:
        if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise _refused("The path leads through a link, which is not followed.", param)
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        message = "There is no such file that the service may read."
        raise VlmqError(ErrorCode.FILE_NOT_FOUND, message, param=param, status=422) from None


def _refused(message: str, param: str) -> VlmqError:
    return VlmqError(ErrorCode.INVALID_REQUEST, message, param=param)
