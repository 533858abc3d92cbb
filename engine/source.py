"""Where the files of a checkpoint or an adapter are: a folder of the user's, or the hub's cache."""

from dataclasses import dataclass
from pathlib import Path

from engine.revision import local_revision
from vlmq.errors import ErrorCode, VlmqError
from vlmq.hub import HubError, OnBytes, Repository


@dataclass(frozen=True, slots=True)
class Source:
    """A folder, and the name by which users know it, without the path to it."""

    name: str
    folder: Path
    revision: str


def find(
    what: str, name: str, revision: str | None, token: str | None, *, only: str | None = None, on_bytes: OnBytes | None
) -> Source:
    """The files of a checkpoint or an adapter, downloaded if they are on the hub; `only` one of them, if named.

    `what` says in messages what was named.

    Raises:
        VlmqError: MODEL_LOAD_FAILED.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Source(shown(name), folder, local_revision(folder))
    if folder.is_absolute() or name.startswith((".", "~")):
        raise failed(what, shown(name), "is not a directory on this machine")
    try:
        cached = Repository(name, revision, token).download(only=only, on_bytes=on_bytes)
    except HubError as error:
        raise failed(what, name, str(error)) from error
    return Source(name, cached, cached.name)


def shown(name: str) -> str:
    """A checkpoint's name for users: a folder goes by its last part, without the path to it."""
    folder = Path(name).expanduser()
    is_path = name.startswith((".", "~", "/")) or folder.is_dir()
    return folder.resolve().name if is_path else name


def failed(what: str, name: str, problem: str) -> VlmqError:
    return VlmqError(ErrorCode.MODEL_LOAD_FAILED, f"The {what} {name} {problem}")
