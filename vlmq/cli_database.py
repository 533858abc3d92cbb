"""The commands that look after the database's schema: db upgrade, db downgrade, db current."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from vlmq.cli_values import filled
from vlmq.errors import ExplainedError

if TYPE_CHECKING:
    from sqlalchemy import Engine

commands = typer.Typer(help="Look after the database's schema.", no_args_is_help=True)


@commands.command("upgrade")
def upgrade(revision: Annotated[str, typer.Argument(callback=filled)] = "head") -> None:
    """Bring the schema to the newest revision, or to one that is named."""
    from migrations.schema import upgrade as bring_up

    with _database_engine() as engine:
        bring_up(engine, revision)


# Click would take -1 for an option.
@commands.command("downgrade", context_settings={"ignore_unknown_options": True})
def downgrade(
    revision: Annotated[str, typer.Argument(callback=filled, help="A revision, or -1 for one step; base for none.")],
) -> None:
    """Take the schema back to an older revision. Data that has no place there is lost."""
    from migrations.schema import downgrade as take_back

    with _database_engine() as engine:
        take_back(engine, revision)


@commands.command("current")
def current(
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the schema's revision; exits with 1 when it is not the newest."""
    import json as jsonlib

    from migrations.schema import current_revision, is_current, is_known
    from vlmq.config import get_settings

    settings = get_settings()
    revision, newest, known = None, False, True
    # To connect would make SQLite's file, and whoever looks in the wrong folder would leave one there.
    if settings.sqlite_file is None or settings.sqlite_file.exists():
        with _database_engine() as engine:
            revision, newest, known = current_revision(engine), is_current(engine), is_known(engine)
    if json:
        print(jsonlib.dumps({"revision": revision, "is_current": newest}))
    else:
        advice = "" if newest else "; run `vlmq db upgrade`" if known else "; made by a newer vlmq, run that version"
        where = "" if revision or settings.database_url else f" in {settings.data_dir} (VLMQ_DATA_DIR names another)"
        print(f"{revision or 'no schema yet'}{where}{advice}")
    raise typer.Exit(0 if newest else 1)


@contextmanager
def _database_engine() -> Iterator["Engine"]:
    from sqlalchemy.exc import DBAPIError

    from models.db import Database
    from vlmq.config import get_settings

    settings = get_settings()
    if not settings.database_url:
        try:
            settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ExplainedError(f"the data directory {settings.data_dir} cannot be used: {error.strerror}") from None
    database = Database(settings.sqlalchemy_url)
    try:
        yield database.engine
    except DBAPIError as error:
        raise ExplainedError(f"the database cannot be used: {str(error.orig).strip()}") from None
    finally:
        database.dispose()
