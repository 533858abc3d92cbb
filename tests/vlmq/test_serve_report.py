import sys
from pathlib import Path

import pytest

from vlmq.serve_report import command


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the programs of an environment that is not on the PATH."""
    folder = tmp_path / "my project" / ".venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "vlmq").touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    return folder


def test_a_command_on_the_path_is_called_by_name(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(environment))
    assert command() == "vlmq"


def test_another_is_called_as_it_is_seen_from_here(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(environment.parent.parent)
    assert command() == ".venv/bin/vlmq"
    monkeypatch.chdir("/")
    assert command() == f"'{str(environment / 'vlmq')[1:]}'"


def test_without_a_command_the_module_is_run(environment: Path) -> None:
    (environment / "vlmq").unlink()
    assert command() == "python -m vlmq"
