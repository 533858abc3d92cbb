"""Checkpoints from the Hugging Face hub, in its own cache: each file is downloaded once.

Needs huggingface_hub, which comes with the worker's packages, and neither torch nor transformers.
"""

import errno
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    DryRunError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from tqdm import tqdm

from vlmq.errors import ExplainedError

# Bytes so far, and all that will be fetched; 0 when nothing is missing.
OnBytes = Callable[[int, int], None]

# What transformers reads of a checkpoint or an adapter. Weights that only run code of their own (pickles) are not.
_WANTED = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "*.txt"]
# Copies of the weights for other programs.
_UNWANTED = ["*/*.safetensors", "*/*.json", "*/*.txt", "*/*.model", "consolidated*"]
# Beside the weights: room for what a download leaves until it is whole.
_SPARE_BYTES = 64 * 2**20
# A download writes every few seconds, or is none any more.
_ABANDONED_S = 24 * 3600


class HubError(ExplainedError):
    """The checkpoint cannot be had; the message goes on where a sentence began with its name ("is gated: …")."""


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository on the hub. `revision` is a branch, a tag or a commit."""

    id: str
    revision: str | None = None
    token: str | None = None

    def download(self, *, only: str | None = None, on_bytes: OnBytes | None = None) -> Path:
        """The folder in the hub's cache, whose name is the commit, once every file (or just one) is in it.

        Without a connection the cached files are taken, if they are complete.

        Raises:
            HubError: the repository cannot be had, or not written to the disk.
        """
        options: dict[str, Any] = {
            "revision": self.revision,
            "token": self.token,
            "allow_patterns": [only] if only else _WANTED,
            "ignore_patterns": None if only else _UNWANTED,
        }
        try:
            self._sweep()
            missing = self._missing_bytes(options)
            _check_room(missing)
            if on_bytes is not None:
                on_bytes(0, missing)
            return Path(snapshot_download(self.id, tqdm_class=_counting(on_bytes, missing), **options))
        except HubError:
            raise
        except (HfHubHTTPError, HFValidationError, httpx2.HTTPError, OSError, RuntimeError) as error:
            raise HubError(explain(error)) from error

    def _sweep(self) -> None:
        """Remove what killed downloads left half: nothing else would, and nobody goes on with it."""
        folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=self.id, repo_type="model") / "blobs"
        for half in folder.glob("*.incomplete"):
            if time.time() - half.stat().st_mtime > _ABANDONED_S:
                half.unlink(missing_ok=True)

    def _missing_bytes(self, options: dict[str, Any]) -> int:
        try:
            files = snapshot_download(self.id, dry_run=True, tqdm_class=_counting(None, 0), **options)
        except DryRunError:  # the hub is out of reach; the cache may have it all
            return 0
        return sum(file.file_size for file in files if file.will_download)


def explain(error: BaseException) -> str:
    """Why the hub or the disk refused, to go on after a checkpoint's name."""
    for kinds, explanation in _EXPLANATIONS:
        if any(isinstance(link, kinds) for link in _chain(error)):
            return explanation
    if any(isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT) for link in _chain(error)):
        return f"does not fit on the disk: make room where the hub's cache is, or move it with HF_HOME; {_KEPT}"
    if any(isinstance(link, PermissionError) for link in _chain(error)):
        return "cannot be written to the hub's cache: its folder belongs to somebody else; set HF_HOME"
    return f"could not be downloaded whole: the connection broke off; {_KEPT}"


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return chain


def _check_room(missing: int) -> None:
    cache = Path(constants.HF_HUB_CACHE)
    existing = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if missing and missing + _SPARE_BYTES > free:
        need = f"needs {missing:,} bytes on the disk, which has {free:,} free"
        raise HubError(f"{need}; make room where the hub's cache is, or move it with HF_HOME")


def _counting(on_bytes: OnBytes | None, total: int) -> type[Any]:
    """A class of bars that draw nothing and count the bytes that come in."""
    lock = threading.Lock()
    counts: dict[int, int] = {}

    class CountingBar(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **(options | {"disable": True}))
            self._counts_bytes = options.get("unit") == "B"

        def update(self, n: float | None = 1) -> None:
            if on_bytes is None or not self._counts_bytes:
                return
            with lock:
                counts[id(self)] = counts.get(id(self), 0) + int(n or 0)
                # The hub has one bar for bytes received and one for bytes written.
                done = min(max(counts.values()), total)
            on_bytes(done, total)

    return CountingBar


_KEPT = "the files that came whole are kept, and another try fetches the rest"
# The first that fits: a gated repository is also a repository that was not found.
_EXPLANATIONS: tuple[tuple[type[BaseException], str], ...] = (
    (GatedRepoError, "is gated: ask for access on its page at the hub, and set HF_TOKEN"),
    (RevisionNotFoundError, "has no such revision"),
    (RepositoryNotFoundError, "is not on the hub, or is private: set HF_TOKEN to a token that may read it"),
    (LocalEntryNotFoundError, "is not in the local cache, and the hub cannot be reached"),
    (HFValidationError, "is neither a directory on this machine nor a repository's name"),
)
