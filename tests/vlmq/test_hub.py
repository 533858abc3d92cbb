"""Downloads from a hub that runs here, and from one that breaks off, refuses or is away."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from tests.hub import COMMIT, Hub
from vlmq.hub import HubError, Repository, explain

# The hub's client writes in blocks of 10 MB, and goes on after the last whole one.
BIG = 24_000_000


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    folder = tmp_path / "tiny"
    (folder / "original").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(os.urandom(BIG))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "modeling_own.py").write_text("raise SystemExit")
    (folder / "original" / "params.json").write_text("{}")
    hub = Hub({"org/tiny": folder})
    with hub.in_place_of_the_real_one(tmp_path / "cache"):
        yield hub


def refusal(repository: Repository) -> str:
    with pytest.raises(HubError) as caught:
        repository.download()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_a_checkpoint_needs_is_fetched_and_its_bytes_are_counted(hub: Hub) -> None:
    counts: list[tuple[int, int]] = []
    folder = Repository("org/tiny").download(on_bytes=lambda done, total: counts.append((done, total)))
    assert folder.name == COMMIT
    assert sorted(path.name for path in folder.iterdir()) == ["chat_template.jinja", "config.json", "model.safetensors"]
    total = BIG + 2 + len("{{ messages }}")
    assert counts[0] == (0, total)
    assert counts[-1] == (total, total)
    assert [done for done, _ in counts] == sorted(done for done, _ in counts)


def test_what_is_there_is_not_fetched_again_and_needs_no_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Repository("org/tiny").download()
    sent = dict(hub.sent)
    counts: list[tuple[int, int]] = []
    assert Repository("org/tiny").download(on_bytes=lambda *count: counts.append(count)) == folder
    assert (hub.sent, counts) == (sent, [(0, 0)])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert Repository("org/tiny").download() == folder


def test_a_connection_that_breaks_is_made_anew_and_goes_on_where_it_ended(hub: Hub) -> None:
    hub.broken_downloads = 1
    folder = Repository("org/tiny").download()
    assert hub.last_start["model.safetensors"] > 0
    source = hub.repositories["org/tiny"] / "model.safetensors"
    assert (folder / "model.safetensors").read_bytes() == source.read_bytes()


def test_a_download_that_broke_off_keeps_the_files_that_came_whole(hub: Hub) -> None:
    hub.broken_downloads = 100
    assert "another try fetches the rest" in refusal(Repository("org/tiny"))
    hub.broken_downloads = 0
    counts: list[tuple[int, int]] = []
    folder = Repository("org/tiny").download(on_bytes=lambda *count: counts.append(count))
    assert (folder / "model.safetensors").stat().st_size == BIG
    assert counts[-1] == (BIG, BIG)


def test_half_a_download_is_not_taken_for_a_checkpoint_when_the_hub_is_away(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.broken_downloads = 100
    refusal(Repository("org/tiny"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "hub cannot be reached" in refusal(Repository("org/tiny"))


def test_what_a_killed_download_left_half_is_removed_after_a_day(hub: Hub) -> None:
    folder = Repository("org/tiny").download()
    blobs = folder.parent.parent / "blobs"
    old, new = blobs / "x.11111111.incomplete", blobs / "y.22222222.incomplete"
    for half in (old, new):
        half.write_bytes(b"half")
    os.utime(old, (0, 0))
    Repository("org/tiny").download()
    assert not old.exists()
    assert new.exists()


def test_a_gated_repository_wants_a_token(hub: Hub) -> None:
    hub.gated.add("org/tiny")
    assert refusal(Repository("org/tiny", token="hf_other")).startswith("is gated: ask for access")
    assert Repository("org/tiny", token=hub.token).download().name == COMMIT


def test_a_name_or_a_revision_that_is_not_there_is_said_so(hub: Hub) -> None:
    assert refusal(Repository("org/none")).startswith("is not on the hub, or is private")
    assert refusal(Repository("org/tiny", "v9")) == "has no such revision"
    assert "nor a repository's name" in refusal(Repository("not a name"))


def test_a_download_that_cannot_fit_on_the_disk_does_not_begin(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmq.hub.shutil.disk_usage", lambda _folder: _Usage())
    assert "bytes on the disk, which has 1,000 free" in refusal(Repository("org/tiny"))
    assert hub.sent == {}


class _Usage:
    free = 1000


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "does not fit on the disk"),
        (PermissionError(errno.EACCES, "Permission denied"), "belongs to somebody else"),
        (ConnectionResetError(), "the connection broke off"),
    ],
)
def test_what_the_disk_or_the_network_says_is_put_in_words(error: OSError, told: str) -> None:
    wrapped: Any = RuntimeError("wrapped")
    wrapped.__cause__ = error
    assert told in explain(wrapped)
