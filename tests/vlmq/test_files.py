import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vlmq.errors import ErrorCode, VlmqError
from vlmq.files import FileStore
from vlmq.sniff import HEAD_BYTES

CONTENT = b"\x89PNG" + bytes(range(256)) * 64


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "files")


def kept(store: FileStore) -> list[Path]:
    return sorted(path for path in store.path("00").parent.parent.rglob("*") if path.is_file())


def chunks(content: bytes = CONTENT, size: int = 1000) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def test_bytes_are_found_again_under_their_hash(store: FileStore) -> None:
    stored = store.put(chunks(), limit=len(CONTENT))
    assert (stored.sha256, stored.size) == (hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
    assert store.head(stored.sha256) == CONTENT[:HEAD_BYTES]
    assert store.path(stored.sha256).read_bytes() == CONTENT


def test_one_byte_too_many_is_refused_and_leaves_nothing(store: FileStore) -> None:
    with pytest.raises(VlmqError) as refusal:
        store.put(chunks(), limit=len(CONTENT) - 1, param="file")
    assert (refusal.value.code, refusal.value.param) == (ErrorCode.MEDIA_TOO_LARGE, "file")
    assert kept(store) == []


def test_bytes_that_the_disk_does_not_remove_are_left_behind(store: FileStore) -> None:
    stored = store.put(chunks(), limit=len(CONTENT))
    path = store.path(stored.sha256)
    path.unlink()
    path.mkdir()  # which refuses even the superuser
    store.delete(stored.sha256)
    assert path.exists()


def test_no_more_is_read_than_the_limit_allows(store: FileStore) -> None:
    read = []

    def endless() -> Iterator[bytes]:
        while True:
            read.append(1)
            yield bytes(100)

    with pytest.raises(VlmqError):
        store.put(endless(), limit=1000)
    assert len(read) == 11


def test_an_upload_that_breaks_off_leaves_nothing(store: FileStore) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half of "
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        store.put(broken(), limit=1000)
    assert kept(store) == []


def test_the_same_content_from_many_at_once_is_kept_once_and_whole(store: FileStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(lambda _: store.put(chunks(), limit=10**6), range(64)))
    assert len({item.sha256 for item in stored}) == 1
    assert kept(store) == [store.path(stored[0].sha256)]
    assert kept(store)[0].read_bytes() == CONTENT


def test_content_is_never_seen_half_written(store: FileStore) -> None:
    final = store.path(hashlib.sha256(CONTENT).hexdigest())

    def watched() -> Iterator[bytes]:
        for chunk in chunks():
            assert not final.exists()
            yield chunk

    store.put(watched(), limit=10**6)
    assert final.exists()


def test_empty_content_is_content(store: FileStore) -> None:
    stored = store.put([], limit=10)
    assert (stored.size, store.head(stored.sha256)) == (0, b"")
    assert store.path(stored.sha256).read_bytes() == b""


def test_deleting_what_is_not_there_does_nothing(store: FileStore) -> None:
    stored = store.put(chunks(), limit=10**6)
    store.delete(stored.sha256)
    store.delete(stored.sha256)
    assert kept(store) == []


def test_bytes_and_names_are_on_the_disk_before_put_returns(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    fsync = os.fsync

    def recorded(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").readlink())
        fsync(handle)

    monkeypatch.setattr(os, "fsync", recorded)
    final = store.path(store.put(chunks(), limit=10**6).sha256)
    assert synced[0].name.startswith(".incoming-")
    assert synced[1:] == [final.parent, final.parent.parent]


def test_a_put_that_is_killed_leaves_no_content_under_a_hash(store: FileStore, tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from vlmq.files import FileStore\n"
        "def chunks():\n"
        "    yield b'half'\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "FileStore(Path(sys.argv[1])).put(chunks(), limit=100)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "files")], check=False)
    assert all(path.name.startswith(".incoming-") for path in kept(store))


def test_a_folder_that_cannot_be_used_makes_the_service_unavailable(tmp_path: Path) -> None:
    (tmp_path / "files").write_bytes(b"not a folder")
    with pytest.raises(VlmqError) as refusal:
        FileStore(tmp_path / "files").put(chunks(), limit=10**6)
    assert refusal.value.code is ErrorCode.UNAVAILABLE
    assert str(tmp_path) not in refusal.value.message


def test_a_full_disk_makes_the_service_unavailable_and_leaves_nothing(store: FileStore) -> None:
    # A limit on the size of files fails a write as a full disk does.
    code = (
        "import resource, signal, sys; from pathlib import Path; from vlmq.files import FileStore\n"
        "from vlmq.errors import VlmqError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "try: FileStore(Path(sys.argv[1])).put([bytes(1000)] * 10, limit=10**6)\n"
        "except VlmqError as error: sys.exit(error.code)"
    )
    folder = store.path("00").parent.parent
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1] == ErrorCode.UNAVAILABLE
    assert kept(store) == []


def test_uploads_left_behind_for_more_than_a_day_are_removed(tmp_path: Path) -> None:
    old, fresh = tmp_path / ".incoming-old", tmp_path / ".incoming-fresh"
    for partial, age_s in ((old, 25 * 3600), (fresh, 3600)):
        partial.write_bytes(b"half")
        os.utime(partial, (time.time() - age_s,) * 2)
    FileStore(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [fresh.name]
