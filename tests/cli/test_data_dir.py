"""The folder of `vlmq serve`."""

from pathlib import Path

from vlmq.data_dir import DataDir


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
