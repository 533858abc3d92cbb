"""`vlmq db`: the schema made, shown, taken back, and what it says of databases that it cannot use."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.cli.test_command_line import run
from vlmq.cli import app
from vlmq.config import get_settings
from vlmq.errors import ExplainedError


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "a.db"
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{path}")
    get_settings.cache_clear()
    yield path
    get_settings.cache_clear()


def db(*arguments: str) -> str:
    """What a command prints; its refusal is raised."""
    done = CliRunner().invoke(app, ["db", *arguments])
    if isinstance(done.exception, ExplainedError):
        raise done.exception
    return done.output


def test_the_schema_is_made_shown_and_taken_back(tmp_path: Path) -> None:
    place = {"DATABASE_URL": f"sqlite:///{tmp_path / 'a.db'}"}
    assert run("db", "current", **place).stdout == "no schema yet; run `vlmq db upgrade`\n"
    assert run("db", "upgrade", **place).returncode == 0
    current = run("db", "current", "--json", **place)
    assert (current.returncode, json.loads(current.stdout)["is_current"]) == (0, True)
    assert run("db", "downgrade", "base", **place).returncode == 0
    assert run("db", "current", **place).returncode == 1


def test_looking_in_a_folder_without_a_database_names_it_and_leaves_nothing_there(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    done = run("db", "current", VLMQ_DATA_DIR=str(folder))
    assert done.returncode == 1
    assert done.stdout == f"no schema yet in {folder} (VLMQ_DATA_DIR names another); run `vlmq db upgrade`\n"
    assert not folder.exists()


def test_one_step_back_is_minus_one(database: Path) -> None:
    db("upgrade", "0001")
    db("downgrade", "-1")
    assert db("current") == "no schema yet; run `vlmq db upgrade`\n"


@pytest.mark.parametrize("command", ["upgrade", "downgrade"])
def test_an_unknown_revision_is_refused(database: Path, command: str) -> None:
    with pytest.raises(ExplainedError, match="revision 'nonsense': Can't locate"):
        db(command, "nonsense")


@pytest.mark.parametrize("command", ["upgrade", "downgrade"])
@pytest.mark.parametrize("revision", ["@", "@head", "head+1", "0001:0002", ":", "+", "a b"])
def test_what_cannot_be_a_revision_is_refused_with_what_can(database: Path, command: str, revision: str) -> None:
    with pytest.raises(ExplainedError, match="is no revision; take head, base"):
        db(command, revision)


def test_a_database_of_a_newer_vlmq_is_said_to_be_one(database: Path) -> None:
    db("upgrade")
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'later'")
    with pytest.raises(ExplainedError, match="made by a newer vlmq"):
        db("upgrade")
    assert db("current") == "later; made by a newer vlmq, run that version\n"


def test_a_file_that_is_no_database_is_refused(database: Path) -> None:
    database.write_text("no database " * 100)
    with pytest.raises(ExplainedError, match="file is not a database"):
        db("current")
