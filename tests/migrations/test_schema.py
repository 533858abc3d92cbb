import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import make_url

from migrations import schema
from models.claims import claim_next
from models.db import Base, Database
from models.job import JobKind, JobStatus
from tests.processes import until
from tests.tasks.rows import get_job, insert_deliveries, insert_job

TABLES = {"jobs", "files", "job_files", "deliveries", "delivery_attempts", "workers", "idempotency_keys", "templates"}


@pytest.fixture
def empty_postgres_url(postgres_template: str) -> Iterator[str]:
    name = f"empty_{uuid4().hex}"
    admin = create_engine(postgres_template, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template0"))
    yield make_url(postgres_template).set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    return str(request.getfixturevalue("empty_postgres_url"))


@pytest.fixture
def empty(empty_url: str) -> Iterator[Database]:
    database = Database(empty_url)
    yield database
    database.dispose()


def tables(database: Database) -> set[str]:
    return set(inspect(database.engine).get_table_names())


def test_the_schema_comes_and_goes_and_comes_again(empty: Database) -> None:
    assert schema.current_revision(empty.engine) is None
    assert not schema.is_current(empty.engine)
    for _ in range(2):
        schema.upgrade(empty.engine)
        assert schema.is_current(empty.engine)
        assert tables(empty) == TABLES | {"alembic_version"}
        schema.downgrade(empty.engine, "base")
        assert tables(empty) == {"alembic_version"}
        assert schema.current_revision(empty.engine) is None


def test_the_migrated_schema_is_the_one_that_the_models_describe(empty: Database) -> None:
    schema.upgrade(empty.engine)
    with empty.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_indexes_and_foreign_keys_are_those_of_the_models(tmp_path: Path) -> None:
    """Alembic's comparison leaves out an index's condition and order, and what a deletion does."""
    described = Database(f"sqlite:///{tmp_path / 'described.db'}")
    Base.metadata.create_all(described.engine)
    migrated = Database(f"sqlite:///{tmp_path / 'migrated.db'}")
    schema.upgrade(migrated.engine)
    assert indexes(migrated) == indexes(described)
    assert foreign_keys(migrated) == foreign_keys(described)
    migrated.dispose()
    described.dispose()


def indexes(database: Database) -> dict[str, str]:
    with database.read() as session:
        rows = session.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"))
        return {name: sql.replace('"', "") for name, sql in rows}


def foreign_keys(database: Database) -> list[tuple[str, str, object]]:
    inspector = inspect(database.engine)
    return sorted(
        (table, str(key["name"]), str(key["options"])) for table in TABLES for key in inspector.get_foreign_keys(table)
    )


def test_upgrades_at_the_same_moment_do_not_meet(empty_url: str) -> None:
    start = threading.Barrier(4)

    def upgrade(_: int) -> bool:
        database = Database(empty_url)
        start.wait(10)
        schema.upgrade(database.engine)
        current = schema.is_current(database.engine)
        database.dispose()
        return current

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(upgrade, range(4))) == [True] * 4


def test_many_may_open_a_new_database_at_once(tmp_path: Path) -> None:
    start = threading.Barrier(8)

    def write(number: int) -> None:
        database = Database(f"sqlite:///{tmp_path / f'{number}.db'}")
        start.wait(20)
        with database.write() as session:
            session.execute(text("CREATE TABLE IF NOT EXISTS t (n INTEGER)"))
        database.dispose()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, [number for number in range(20) for _ in range(8)]))


def test_rows_outlive_an_upgrade_that_has_nothing_to_do(empty: Database) -> None:
    schema.upgrade(empty.engine)
    job_id = insert_job(empty)
    schema.upgrade(empty.engine)
    assert get_job(empty, job_id).status == JobStatus.QUEUED


def test_rows_outlive_the_newest_step_up_and_down(empty: Database) -> None:
    schema.upgrade(empty.engine, "0002")
    waiting, _, done = insert_job(empty), insert_job(empty, kind=JobKind.RENDER), insert_deliveries(empty, "http://a/")
    before = rows(empty)
    assert len(before) == 3
    for move, revision in ((schema.upgrade, "head"), (schema.downgrade, "0002"), (schema.upgrade, "head")):
        move(empty.engine, revision)
        assert rows(empty) == before
    with empty.write() as session:
        claimed = claim_next(session, model="scripted", worker_id="w", lease_s=60, renders_only=True)
        assert claimed is not None
        assert claimed.id not in (waiting, *done)


def rows(database: Database) -> list[tuple[object, ...]]:
    with database.read() as session:
        return [tuple(row) for row in session.execute(text("SELECT * FROM jobs ORDER BY id"))]


def test_the_deliveries_of_a_deleted_job_go_with_it(empty: Database) -> None:
    schema.upgrade(empty.engine)
    insert_deliveries(empty, "http://127.0.0.1/hook")
    with empty.write() as session:
        session.execute(text("DELETE FROM jobs"))
        assert session.scalar(text("SELECT count(*) FROM deliveries")) == 0


def test_an_upgrade_may_take_longer_than_other_statements(empty_postgres_url: str) -> None:
    """Building an index on a large table, or waiting for another's upgrade, takes its time."""
    hasty = create_engine(empty_postgres_url, connect_args={"options": "-c statement_timeout=200"})
    admin = create_engine(empty_postgres_url)
    long_waiting = text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE wait_event = 'advisory' AND clock_timestamp() - query_start > interval '400 ms'"
    )
    with ThreadPoolExecutor(1) as pool:
        with admin.begin() as other, admin.connect().execution_options(isolation_level="AUTOCOMMIT") as watcher:
            other.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": schema.POSTGRES_LOCK})
            upgrading = pool.submit(schema.upgrade, hasty)
            until(lambda: upgrading.done() or bool(watcher.scalar(long_waiting)), what="a long wait")
        upgrading.result(30)
    assert schema.is_current(hasty)
    hasty.dispose()
    admin.dispose()
