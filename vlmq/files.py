"""Uploaded bytes on disk, addressed by their SHA-256."""

import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from vlmq.errors import ErrorCode, VlmqError
from vlmq.sniff import HEAD_BYTES

log = structlog.get_logger(__name__)

INCOMING = ".incoming-"
# No upload that is still under way stands still for so long.
LEFT_BEHIND_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class StoredBytes:
    """What `FileStore.put` kept: the SHA-256 in hex, and the size in bytes."""

    sha256: str
    size: int


class FileStore:
    """A content-addressed folder; every process of a deployment sees the same one (a shared volume)."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._remove_left_behind()

    def path(self, sha256: str) -> Path:
        return self._root / sha256[:2] / sha256

    def put(self, chunks: Iterable[bytes], *, limit: int, param: str | None = None) -> StoredBytes:
        """Keep the bytes; the same content is kept once.

        Raises:
            VlmqError: MEDIA_TOO_LARGE when there are more than `limit` bytes, UNAVAILABLE when the disk takes none.
        """
        with disk():
            self._root.mkdir(parents=True, exist_ok=True)
            incoming = tempfile.NamedTemporaryFile(dir=self._root, prefix=INCOMING, delete=False)  # noqa: SIM115
        partial = Path(incoming.name)
        digest, size = hashlib.sha256(), 0
        try:
            for chunk in chunks:
                size += len(chunk)
                if size > limit:
                    raise VlmqError(
                        ErrorCode.MEDIA_TOO_LARGE, f"The file has more than the {limit} bytes allowed.", param=param
                    )
                digest.update(chunk)
                with disk():
                    incoming.write(chunk)
            with disk():
                incoming.flush()
                # A job that is accepted must still find its media after a power cut.
                os.fsync(incoming.fileno())
                incoming.close()
                final = self.path(digest.hexdigest())
                final.parent.mkdir(exist_ok=True)
                partial.replace(final)
                _sync(final.parent)
                _sync(self._root)
        except BaseException:
            # Closing writes what is still buffered, which a full disk refuses once more.
            with suppress(OSError):
                incoming.close()
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        return StoredBytes(digest.hexdigest(), size)

    def head(self, sha256: str) -> bytes:
        """The first bytes, for sniffing; none when they are not there, or cannot be read."""
        with suppress(OSError), self.path(sha256).open("rb") as file:
            return file.read(HEAD_BYTES)
        return b""

    def delete(self, sha256: str) -> None:
        """Remove the bytes. Where the disk refuses, they are left behind, which the log says."""
        try:
            self.path(sha256).unlink(missing_ok=True)
        except OSError as error:
            log.warning("a deleted file's bytes could not be removed", sha256=sha256, error=error.strerror)

    def _remove_left_behind(self) -> None:
        """Uploads whose process was killed. A folder that cannot be cleaned can still be read."""
        oldest = time.time() - LEFT_BEHIND_S
        with suppress(OSError):
            for partial in self._root.glob(f"{INCOMING}*"):
                with suppress(OSError):
                    if partial.stat().st_mtime < oldest:
                        partial.unlink()


@contextmanager
def disk() -> Iterator[None]:
    """What happens within is our disk's doing; an OSError of the upload's connection is not.

    Raises:
        VlmqError: UNAVAILABLE for an OSError.
    """
    try:
        yield
    except OSError as error:
        log.exception("files cannot be stored", error=str(error))
        raise VlmqError(ErrorCode.UNAVAILABLE, "The service cannot store files right now.") from error


def _sync(folder: Path) -> None:
    """Names reach the disk with their folder only."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
