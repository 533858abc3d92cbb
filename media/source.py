"""Where an image or a video comes from, and the way to its bytes: an upload, a URL, a file of the media folder."""

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from media.sniff import HEAD_BYTES
from vlmq.config import Settings
from vlmq.cutoff import Cutoff
from vlmq.errors import ErrorCode, VlmqError
from vlmq.outbound import fetch
from vlmq.rooted import open_beneath, relative_path


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A stored upload. Whoever knows its SHA-256 says so, and spares reading the whole file."""

    path: Path
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class RemoteUrl:
    """A URL that a user gave."""

    url: str


@dataclass(frozen=True, slots=True)
class RootedPath:
    """A file of the server's media folder, relative to it."""

    path: str


Source = LocalFile | RemoteUrl | RootedPath


@dataclass(frozen=True, slots=True)
class Opened:
    """A file at its beginning, its first bytes for sniffing, and the hash of all of them."""

    file: BinaryIO
    head: bytes
    sha256: str


class SourceOpener:
    """Opens sources; downloads lie in the data directory, without a name."""

    def __init__(self, settings: Settings) -> None:
        self._fetch_timeout_s = settings.limits.fetch_timeout_s
        self._allow_private = settings.dev_allow_private_urls
        self._downloads = settings.data_dir / "tmp"
        self._root = settings.media_root

    @contextmanager
    def open(self, source: Source, limit_bytes: int, param: str, cutoff: Cutoff) -> Iterator[Opened]:
        """The bytes behind `source`, all of them here, until the block ends.

        Raises:
            VlmqError: what is wrong with the URL, the download or the file, with `param`.
        """
        if isinstance(source, RemoteUrl):
            self._downloads.mkdir(parents=True, exist_ok=True)
            # Has no name, so that it goes when we do, even by kill -9.
            with tempfile.TemporaryFile(dir=self._downloads) as file:
                sha256 = fetch(
                    source.url,
                    limit_bytes=limit_bytes,
                    timeout_s=self._fetch_timeout_s,
                    allow_private=self._allow_private,
                    sink=file,
                    param=param,
                    cutoff=cutoff,
                )
                file.flush()
                yield Opened(file, _head(file), sha256)
        elif isinstance(source, RootedPath):
            with self._open_rooted(source.path, limit_bytes, param) as file:
                yield Opened(file, _head(file), _digest(file))
        else:
            with _open_stored(source.path, limit_bytes, param) as file:
                sha256 = source.sha256 or _digest(file)
                yield Opened(file, _head(file), sha256)

    def _open_rooted(self, path: str, limit_bytes: int, param: str) -> BinaryIO:
        relative = relative_path(self._root, path, param=param)
        assert self._root is not None  # relative_path has refused
        file = os.fdopen(open_beneath(self._root, relative, param=param), "rb")
        if os.fstat(file.fileno()).st_size <= limit_bytes:
            return file
        file.close()
        raise _too_large(limit_bytes, param)


def _open_stored(path: Path, limit_bytes: int, param: str) -> BinaryIO:
    gone = VlmqError(ErrorCode.FILE_NOT_FOUND, "The file is not stored any more.", param=param)
    try:
        # Non-blocking: opening a FIFO would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise gone from None
    file = os.fdopen(descriptor, "rb")
    facts = os.fstat(descriptor)
    if stat.S_ISREG(facts.st_mode) and facts.st_size <= limit_bytes:
        return file
    file.close()
    if not stat.S_ISREG(facts.st_mode):
        raise gone
    raise _too_large(limit_bytes, param)


def _too_large(limit_bytes: int, param: str) -> VlmqError:
    return VlmqError(ErrorCode.MEDIA_TOO_LARGE, f"The file is larger than {limit_bytes} bytes.", param=param)


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(2**20):
        digest.update(chunk)
    return digest.hexdigest()


def _head(file: BinaryIO) -> bytes:
    file.seek(0)
    head = file.read(HEAD_BYTES)
    file.seek(0)
    return head
