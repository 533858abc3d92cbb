import sys
from io import StringIO
from pathlib import Path

import pytest
from pydantic import SecretStr
from rich.console import Console

from vlmq.cli_jobs import DEFAULT_URL
from vlmq.config import Settings
from vlmq.serve_report import command, print_ready


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


def test_what_to_try_names_the_address_and_the_key_where_it_takes_them() -> None:
    output = StringIO()
    plain, with_keys = Settings(api_keys={}), Settings(api_keys={"acme": SecretStr("secret")})
    print_ready(Console(file=output, width=200), plain, DEFAULT_URL, [])
    assert output.getvalue().splitlines()[4].endswith('submit cat.jpg "What is this?"')
    print_ready(Console(file=output, width=200), with_keys, "http://127.0.0.1:8001", [])
    assert '"What is this?" --url http://127.0.0.1:8001 --api-key …' in output.getvalue()
    assert "secret" not in output.getvalue()
