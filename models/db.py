"""The database: PostgreSQL or SQLite behind the same two verbs, `read` and `write`."""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, ColumnElement, Connection, DateTime, Enum, Index, MetaData, create_engine, event, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect, make_url
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as SQLTimeoutError
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.types import TypeDecorator

# What a database that is away or overloaded raises; trying again helps.
DATABASE_ERRORS = (OperationalError, InterfaceError, SQLTimeoutError)

# How long SQLite's one writer is waited for, in seconds.
BUSY_S = 10

JsonObject = JSON().with_variant(JSONB(), "postgresql")


class UTCDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime; SQLite, which has no zones, keeps it as text without one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime reached the database")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012
        datetime: UTCDateTime(),
        dict[str, Any]: JsonObject,
        list[dict[str, Any]]: JsonObject,
    }


def stored_enum(kind: type[StrEnum]) -> Enum:
    """A column type that keeps the values of an enum as text."""
    return Enum(
        kind, native_enum=False, length=16, values_callable=lambda members: [member.value for member in members]
    )


def partial_index(name: str, *columns: str | ColumnElement[Any], where: str) -> Index:
    """An index of the rows for which the SQL `where` holds."""
    return Index(name, *columns, postgresql_where=text(where), sqlite_where=text(where))


def utc_now() -> datetime:
    return datetime.now(UTC)


class Database:
    """Sessions on one engine. Every transaction is short; none is open while a model generates."""

    def __init__(self, url: str) -> None:
        sqlite = make_url(url).get_backend_name() == "sqlite"
        options: dict[str, Any] = {"json_serializer": lambda value: json.dumps(value, ensure_ascii=False)}
        if not sqlite:
            options |= {
                "pool_pre_ping": True,
                "pool_size": 10,
                "max_overflow": 40,
                "pool_timeout": 5,
                "connect_args": {
                    "connect_timeout": 5,
                    # A network that swallows packets would hold a thread for as long as the kernel tries.
                    "keepalives_idle": 10,
                    "keepalives_interval": 5,
                    "keepalives_count": 3,
                    "tcp_user_timeout": 20_000,
                    "options": "-c statement_timeout=10000 -c idle_in_transaction_session_timeout=30000",
                },
            }
        self.engine = create_engine(url, **options)
        if sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        self._write_engine = self.engine.execution_options(vlmq_writes=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading only."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session in one transaction, committed at the end of the block."""
        with Session(self._write_engine, expire_on_commit=False) as session, session.begin():
            # Begin now, not at the first statement: what the block reads from the clock is then not older than its
            # wait for the lock.
            session.connection()
            yield session

    def dispose(self) -> None:
        self.engine.dispose()


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver's own transaction handling begins late and deferred; `_begin_sqlite` begins instead.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_S * 1000}")
    _write_ahead(cursor)
    # An accepted job must survive a power cut, so each commit reaches the disk.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    give_up_at = time.monotonic() + BUSY_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            # Of several that switch a new database at once, some are refused without the wait of `busy_timeout`.
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.02)


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that reads and then writes fails with a lock error that no waiting helps against.
    writes = connection.get_execution_options().get("vlmq_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
