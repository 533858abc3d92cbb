"""The folder of `vlmq serve`."""

from pathlib import Path

import pytest

from vlmq.data_dir import DataDir, DataDirError
from vlmq.signing import is_secret


def test_the_data_directory_is_the_owners_alone_and_its_socket_path_short(tmp_path: Path) -> None:
    deep = tmp_path / ("deep" * 30)
    data = DataDir(deep)
    data.prepare()
    data.make_master_secret()
    assert deep.stat().st_mode & 0o777 == 0o700
    assert (deep / "webhook.secret").stat().st_mode & 0o777 == 0o600
    assert len(str(data.socket)) <= 100
    assert data.socket.parent.stat().st_mode & 0o777 == 0o700
    data.socket.parent.rmdir()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"whsec_", b"secret"])
def test_a_damaged_secret_is_named_and_kept(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "webhook.secret").write_bytes(content)
    data = DataDir(tmp_path)
    data.make_master_secret()
    with pytest.raises(DataDirError, match=r"webhook\.secret holds no webhook secret"):
        data.master_secret()
    assert (tmp_path / "webhook.secret").read_bytes() == content


def test_a_secret_that_was_half_written_does_not_hinder_the_next_start(tmp_path: Path) -> None:
    (tmp_path / "webhook.new").write_text("whs")
    data = DataDir(tmp_path)
    data.make_master_secret()
    assert is_secret(str(data.master_secret()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["webhook.secret"]


@pytest.mark.parametrize("name", ["serve.lock", "webhook.secret"])
def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    data = DataDir(tmp_path)
    with pytest.raises(DataDirError, match=name), data.locked():
        data.master_secret()
