"""How both databases find the job to claim, in a queue that is long."""

import re
from datetime import timedelta
from typing import Any

import pytest
from psycopg import ClientCursor
from sqlalchemy import Connection, event, insert

from models.claims import claim_next
from models.db import Database, utc_now
from models.job import Job


def claim_statement(database: Database, *, renders_only: bool) -> tuple[str, Any]:
    """A claim's SQL and parameters, as the driver gets them."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, sql: str, parameters: Any, *_: Any) -> None:
        seen.append((sql, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    with database.write() as session:
        claim_next(session, model="m", worker_id="w", lease_s=60, renders_only=renders_only)
    event.remove(database.engine, "before_cursor_execute", note)
    return next((sql, parameters) for sql, parameters in seen if sql.startswith("UPDATE"))


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


@pytest.mark.parametrize(("renders_only", "index"), [(False, "ix_jobs_claim"), (True, "ix_jobs_claim_render")])
def test_a_prepared_claim_takes_its_place_in_the_queue_from_a_partial_index(
    database: Database, renders_only: bool, index: str
) -> None:
    row = {"tenant": "default", "model": "m", "request": {}, "user_metadata": {}, "run_s": 60.0}
    now = utc_now()
    row |= {"created_at": now, "start_deadline_at": now + timedelta(hours=1)}
    with database.write() as session:
        session.execute(insert(Job), [row | {"id": f"job_{number:04}"} for number in range(2000)])
    sql, parameters = claim_statement(database, renders_only=renders_only)
    with database.write() as session:
        found = plan(session.connection(), sql, parameters)
    assert re.search(rf"\b{index}\b", found), found
