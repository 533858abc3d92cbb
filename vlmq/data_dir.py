"""The folder in which `vlmq serve` keeps everything: jobs, files, Redis, logs, its own secret."""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO
from urllib.parse import quote

from pydantic import SecretStr

from vlmq.config import Settings
from vlmq.errors import ExplainedError
from vlmq.signing import is_secret, new_master_secret

# The kernel takes 108 bytes for the path of a Unix socket.
MAX_SOCKET_PATH = 100


class DataDirError(ExplainedError):
    """The folder cannot be used; the message says why."""


class DataDir:
    """A data directory; nobody but its owner may read it."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.logs = self.root / "logs"
        self.redis = self.root / "redis"

    def prepare(self) -> None:
        try:
            self.root.mkdir(parents=True, mode=0o700, exist_ok=True)
            self.logs.mkdir(exist_ok=True)
            self.redis.mkdir(exist_ok=True)
            if self.socket.parent != self.redis:
                _private_folder(self.socket.parent)
        except OSError as error:
            raise DataDirError(f"the data directory {self.root} cannot be used: {error.strerror}") from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process alone; the kernel lets go when the process ends, however it does."""
        with self._lock_file() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                message = f"another `vlmq serve` (process {lock.read().strip()}) runs on {self.root}; stop it first"
                raise DataDirError(f"{message}, or name another --data-dir") from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def _lock_file(self) -> TextIO:
        path = self.root / "serve.lock"
        try:
            return path.open("a+")
        except OSError as error:
            raise DataDirError(f"{path} cannot be used: {error.strerror}; remove it") from None

    @property
    def socket(self) -> Path:
        """Where the embedded Redis listens: in the folder, or in a short one beside it when the path is too long."""
        path = self.redis / "valkey.sock"
        if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
            return path
        name = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"vlmq-{os.getuid()}-{name}" / "valkey.sock"

    @property
    def redis_url(self) -> str:
        return f"unix://{quote(str(self.socket))}?db=0"

    def master_secret(self) -> str | None:
        """The secret that signs webhooks here, if one has been made.

        Raises:
            DataDirError: its file does not hold one.
        """
        path = self.root / "webhook.secret"
        try:
            secret = path.read_text(encoding="ascii").strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise DataDirError(f"{path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            secret = ""
        if not is_secret(secret):
            raise DataDirError(f"{path} holds no webhook secret; restore it, or remove it to have a new one made")
        return secret

    def make_master_secret(self) -> None:
        """Make the secret that signs webhooks here, the first time."""
        path = self.root / "webhook.secret"
        if path.exists():
            return
        # Under its name only when it is whole: a start that is cut short leaves no half of a secret.
        unfinished = path.with_suffix(".new")
        try:
            unfinished.unlink(missing_ok=True)
            with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(new_master_secret() + "\n")
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        except OSError as error:
            raise DataDirError(f"{path} cannot be written: {error.strerror}") from None


def with_own_secret(settings: Settings) -> Settings:
    """The settings with the secret that `vlmq serve` made here, unless they name one."""
    if settings.webhooks.secret is not None:
        return settings
    secret = DataDir(settings.data_dir).master_secret()
    if secret is None:
        return settings
    return settings.model_copy(update={"webhooks": settings.webhooks.model_copy(update={"secret": SecretStr(secret)})})


def _private_folder(path: Path) -> None:
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    # Anybody may make folders in a temporary directory; one that is not ours alone could hold another's socket.
    if path.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise DataDirError(f"{path} belongs to somebody else or is open to others; remove it")
