"""Uploaded bytes on disk, addressed by their SHA-256."""

import hashlib
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vlmq.errors import ErrorCode, VlmqError

HEAD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class StoredBytes:
    """What `FileStore.put` kept: the SHA-256 in hex, the size in bytes, and the first bytes for sniffing."""

    sha256: str
    size: int
    head: bytes


class FileStore:
    """A content-addressed folder; every process of a deployment sees the same one (a shared volume)."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, sha256: str) -> Path:
        return self._root / sha256[:2] / sha256

    def put(self, chunks: Iterable[bytes], *, limit: int, param: str | None = None) -> StoredBytes:
        """Keep the bytes; the same content is kept once.

        Raises:
            VlmqError: MEDIA_TOO_LARGE when there are more than `limit` bytes.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        digest, size, head = hashlib.sha256(), 0, b""
        with tempfile.NamedTemporaryFile(dir=self._root, prefix=".incoming-", delete=False) as incoming:
            partial = Path(incoming.name)
            try:
                for chunk in chunks:
                    size += len(chunk)
                    if size > limit:
                        raise VlmqError(
                            ErrorCode.MEDIA_TOO_LARGE, f"The file has more than the {limit} bytes allowed.", param=param
                        )
                    digest.update(chunk)
                    head += chunk[: HEAD_BYTES - len(head)]
                    incoming.write(chunk)
                incoming.flush()
                # A job that is accepted must still find its media after a power cut.
                os.fsync(incoming.fileno())
                final = self.path(digest.hexdigest())
                final.parent.mkdir(exist_ok=True)
                partial.replace(final)
                _sync(final.parent)
                _sync(self._root)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
        return StoredBytes(digest.hexdigest(), size, head)

    def delete(self, sha256: str) -> None:
        self.path(sha256).unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Names reach the disk with their folder only."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
