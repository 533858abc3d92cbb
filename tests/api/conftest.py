"""The application in this process, and the real server in another."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr

from api.app import create_app
from api.services import EXTENSION, Services
from models.db import Database
from tests.api.stand_in import StandIn
from vlmq.config import Settings, Webhooks
from vlmq.events import EventLog, connect
from vlmq.signing import new_master_secret

START_S = 60.0


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Most of what is tested here is the same on both databases; `test_both_databases.py` has what may differ."""
    return sqlite_url


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhooks": Webhooks(secret=SecretStr(new_master_secret()))})


@pytest.fixture
def app(settings: Settings) -> Iterator[Flask]:
    app = create_app(settings)
    yield app
    service: Services = app.extensions[EXTENSION]
    service.close()
    service.database.dispose()


@pytest.fixture
def service(app: Flask) -> Services:
    found: Services = app.extensions[EXTENSION]
    return found


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def worker(database: Database, event_log: EventLog) -> StandIn:
    return StandIn(database, event_log)


@dataclass
class Server:
    """A running API, and a stand-in for its worker."""

    url: str
    process: subprocess.Popen[bytes]
    worker: StandIn
    redis_url: str

    def submit(self) -> str:
        body: Any = {"model": "scripted", "messages": [{"role": "user", "content": "hello"}]}
        return str(requests.post(f"{self.url}/v1/jobs", json=body, timeout=20).json()["id"])


def start_server(folder: Path, database: Path, redis_url: str, **variables: str) -> Server:
    """Start the API as `vlmq api` does, on a free port, and wait until it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "DATABASE_URL": f"sqlite:///{database}",
        "REDIS_URL": redis_url,
        "VLMQ_DATA_DIR": str(folder / "data"),
        "VLMQ_MODELS": '{"scripted": {"checkpoint": "scripted", "engine": "scripted"}}',
        "VLMQ_PORT": str(port),
        "VLMQ_TIMING__SSE_HEARTBEAT_S": "0.3",
        "VLMQ_LIMITS__MAX_BODY_BYTES": "1000000",
        **variables,
    }
    with (folder / "api.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "vlmq", "api"], env=environment, stdout=log, stderr=log, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    give_up_at = time.monotonic() + START_S
    while True:
        try:
            requests.get(f"{url}/healthz", timeout=5)
            break
        except requests.ConnectionError:
            if process.poll() is not None or time.monotonic() > give_up_at:
                raise RuntimeError((folder / "api.log").read_text()) from None
            time.sleep(0.1)
    worker = StandIn(Database(f"sqlite:///{database}"), EventLog(connect(redis_url), final_ttl_s=600))
    return Server(url, process, worker, redis_url)


def stop_server(server: Server) -> None:
    server.process.terminate()
    try:
        server.process.wait(20)
    finally:
        if server.process.poll() is None:
            os.killpg(server.process.pid, signal.SIGKILL)
    server.worker.database.dispose()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path, valkey: str) -> Iterator[Server]:
    """One server for all tests that stream or wait."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(sqlite_template, folder / "vlmq.db")
    running = start_server(folder, folder / "vlmq.db", valkey)
    yield running
    stop_server(running)
