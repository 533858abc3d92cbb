"""How both databases find the few jobs that are wanted among many."""

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg import ClientCursor
from sqlalchemy import Connection, event, insert
from sqlalchemy.orm import Session

from api.metrics import COUNT_JOBS
from models.claims import claim_next
from models.db import Database, utc_now
from models.job import Job
from models.rendering import delete_forgotten_renders
from vlmq.files import FileStore


def statement(database: Database, verb: str, act: Callable[[Session], object]) -> tuple[str, Any]:
    """The SQL and parameters of the first statement with this verb, as the driver gets them."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, sql: str, parameters: Any, *_: Any) -> None:
        seen.append((sql, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    with database.write() as session:
        act(session)
    event.remove(database.engine, "before_cursor_execute", note)
    return next((sql, parameters) for sql, parameters in seen if sql.startswith(verb))


def plan(connection: Connection, sql: str, parameters: Any) -> str:
    """The plan of the statement when it is prepared, that is, for any parameters."""
    if connection.dialect.name == "sqlite":
        return "\n".join(str(row) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", parameters))
    names: list[str] = []

    def numbered(match: re.Match[str]) -> str:
        names.append(match[1])
        return f"${len(names)}"

    prepared = re.sub(r"%\((\w+)\)s", numbered, sql)
    cursor: ClientCursor[Any] = ClientCursor(connection.connection.dbapi_connection)  # type: ignore[call-overload]
    cursor.execute(f"PREPARE claim AS {prepared}")
    cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
    values = ", ".join(["%s"] * len(names))
    cursor.execute(f"EXPLAIN EXECUTE claim ({values})", [parameters[name] for name in names])
    return "\n".join(row[0] for row in cursor.fetchall())


def insert_jobs(database: Database) -> None:
    now = utc_now()
    row = {"tenant": "default", "model": "m", "request": {}, "user_metadata": {}, "run_s": 60.0}
    row |= {"created_at": now, "start_deadline_at": now + timedelta(hours=1)}
    with database.write() as session:
        session.execute(insert(Job), [row | {"id": f"job_{number:04}"} for number in range(2000)])


@pytest.mark.parametrize(("renders_only", "index"), [(False, "ix_jobs_claim"), (True, "ix_jobs_claim_render")])
def test_a_prepared_claim_takes_its_place_in_the_queue_from_a_partial_index(
    database: Database, renders_only: bool, index: str
) -> None:
    insert_jobs(database)

    def claim(session: Session) -> object:
        return claim_next(session, model="m", worker_id="w", lease_s=60, renders_only=renders_only)

    sql, parameters = statement(database, "UPDATE", claim)
    with database.write() as session:
        found = plan(session.connection(), sql, parameters)
    assert re.search(rf"\b{index}\b", found), found


def test_rendered_prompts_that_are_forgotten_are_not_looked_for_among_all_jobs(
    database: Database, tmp_path: Path
) -> None:
    insert_jobs(database)

    def delete(session: Session) -> object:
        return delete_forgotten_renders(session, FileStore(tmp_path), older_than_s=60)

    sql, parameters = statement(database, "SELECT", delete)
    with database.write() as session:
        found = plan(session.connection(), sql, parameters)
    assert re.search(r"\bix_jobs_render\b", found), found


def test_jobs_are_counted_without_reading_them(database: Database) -> None:
    insert_jobs(database)
    sql = str(COUNT_JOBS.compile(database.engine))
    with database.write() as session:
        connection = session.connection()
        explain = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
        if explain == "EXPLAIN":
            # As for a table that was vacuumed, whose pages need not be looked at beside its index.
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        found = "\n".join(str(row) for row in connection.exec_driver_sql(f"{explain} {sql}"))
    assert re.search(r"\bix_jobs_model_status\b", found), found
