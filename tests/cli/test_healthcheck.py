"""`vlmq healthcheck`: well or not, and why not."""

import socket
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from models.db import Database, utc_now
from models.worker import Worker, WorkerState
from tests.cli.test_command_line import run
from vlmq.free_port import free_port


def start_worker(url: str, state: WorkerState, hostname: str) -> None:
    database = Database(url)
    with database.write() as session:
        worker = Worker(id="wkr_1", model=None, hostname=hostname, pid=1, state=state, details={})
        worker.started_at = worker.heartbeat_at = utc_now()
        session.add(worker)
    database.dispose()


@pytest.mark.parametrize("state", [WorkerState.READY, WorkerState.DRAINING])
def test_a_worker_of_this_host_that_works_is_well(sqlite_url: str, state: WorkerState) -> None:
    start_worker(sqlite_url, state, socket.gethostname())
    assert run("healthcheck", "--worker", DATABASE_URL=sqlite_url).returncode == 0


@pytest.mark.parametrize(
    ("state", "elsewhere", "words"),
    [
        (WorkerState.LOADING, "", "is loading"),
        (WorkerState.FAILED, "", "is failed"),
        (WorkerState.READY, "elsewhere", "has been heard of for 30 s"),
    ],
)
def test_a_worker_that_does_not_work_here_is_told_why(
    sqlite_url: str, state: WorkerState, elsewhere: str, words: str
) -> None:
    start_worker(sqlite_url, state, elsewhere or socket.gethostname())
    done = run("healthcheck", "--worker", DATABASE_URL=sqlite_url)
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr


def test_a_database_without_a_schema_or_a_file_is_told_of_and_not_made(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    done = run("healthcheck", "--worker", DATABASE_URL=f"sqlite:///{path}")
    assert (done.returncode, done.stderr) == (1, f"there is no database in {tmp_path}\n")
    assert not path.exists()
    path.touch()
    done = run("healthcheck", "--worker", DATABASE_URL=f"sqlite:///{path}")
    assert (done.returncode, done.stderr) == (
        1,
        "the database does not answer, or has no schema; see `vlmq doctor`\n",
    )


def test_an_api_is_well_when_it_answers(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/healthz").respond_with_data("{}")
    place = {"VLMQ_HOST": "127.0.0.1", "VLMQ_PORT": str(httpserver.port)}
    assert run("healthcheck", **place).returncode == 0
    httpserver.clear()
    httpserver.expect_request("/healthz").respond_with_data("", status=500)
    assert "/healthz answers 500" in run("healthcheck", **place).stderr
    port = str(free_port("127.0.0.1", 0))
    assert f"no API answers at http://127.0.0.1:{port}" in run("healthcheck", VLMQ_PORT=port).stderr
