"""Bring a database's schema to a revision; `vlmq db upgrade` and `vlmq serve` call this."""

import re
from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, text

from vlmq.errors import ExplainedError

# Any number will do, as long as every upgrade asks for the same one.
POSTGRES_LOCK = 7_305_118


class SchemaError(ExplainedError):
    """The schema cannot be brought to that revision; the message says why."""


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Apply what is missing; several processes may call this at once.

    Raises:
        SchemaError: there is no such revision, or the database is at one that this version of vlmq does not know.
    """
    with engine.execution_options(vlmq_writes=True).begin() as connection:
        _one_at_a_time(connection)
        _move(command.upgrade, connection, revision)


def downgrade(engine: Engine, revision: str) -> None:
    with engine.execution_options(vlmq_writes=True).begin() as connection:
        _one_at_a_time(connection)
        _move(command.downgrade, connection, revision)


def current_revision(engine: Engine) -> str | None:
    """The schema's revision; None for an empty database."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def is_current(engine: Engine) -> bool:
    """Whether the schema is the one that this version of vlmq expects."""
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        return current == ScriptDirectory.from_config(_config(connection)).get_current_head()


def is_known(engine: Engine) -> bool:
    """Whether this version of vlmq knows the schema's revision; a newer one's it does not."""
    with engine.connect() as connection:
        return _is_known(connection)


def _is_known(connection: Connection) -> bool:
    current = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(_config(connection)).walk_revisions()}
    return current is None or current in known


def _move(how: Callable[[Config, str], None], connection: Connection, revision: str) -> None:
    if not _is_known(connection):
        raise SchemaError(
            "the database was made by a newer vlmq, whose schema this one does not know; run that version, or take "
            "the schema back with its `vlmq db downgrade`"
        )
    # Of what is formed otherwise, Alembic asserts that it is not there.
    if re.fullmatch(r"\w+|[+-]\d+", revision) is None:
        raise SchemaError(f"{revision!r} is no revision; take head, base, a revision's name, or steps such as -1")
    try:
        how(_config(connection), revision)
    except CommandError as error:
        raise SchemaError(f"the schema cannot be brought to revision {revision!r}: {error}") from None


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    return config


def _one_at_a_time(connection: Connection) -> None:
    # SQLite's immediate transaction is such a lock already.
    if connection.dialect.name == "postgresql":
        # Waiting for another upgrade, or building an index on a large table, may take longer than a job's statements.
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": POSTGRES_LOCK})
