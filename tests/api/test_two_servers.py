"""Two servers of two processes each, on one database and one Redis."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from models.db import Database
from tests.api.bodies import BODY
from tests.api.conftest import Server, start_server, stop_server
from tests.api.following import as_messages, follow, reader, seen
from tests.api.stand_in import StandIn
from vlmq.config import Settings
from vlmq.events import EventLog


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue({"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]))


@pytest.fixture
def servers(settings: Settings, tmp_path: Path) -> Iterator[list[Server]]:
    running = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        variables = {"DATABASE_URL": settings.database_url, "VLMQ_API_PROCESSES": "2"}
        running.append(start_server(folder, folder / "unused.db", settings.redis_url, **variables))
    yield running
    for server in running:
        stop_server(server)


def test_what_one_process_began_another_goes_on_with(
    servers: list[Server], database: Database, event_log: EventLog
) -> None:
    one, two = servers
    worker = StandIn(database, event_log)

    def post(number: int) -> str:
        key = {"Idempotency-Key": f"order-{number // 10}"}
        answer = requests.post(f"{servers[number % 2].url}/v1/jobs", json=BODY, headers=key, timeout=20)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    with ThreadPoolExecutor(20) as pool:
        made = list(pool.map(post, range(100)))
    assert len(set(made)) == 10
    assert [len(set(made[start : start + 10])) for start in range(0, 100, 10)] == [1] * 10

    job = worker.claim(one.submit())
    events = worker.say(job, "a")
    with reader(one, job.id) as whole, ThreadPoolExecutor(1) as pool:
        wait = pool.submit(requests.get, f"{two.url}/v1/jobs/{job.id}?wait=20", timeout=30)
        events += worker.say(job, "b")
        with follow(two, job.id) as messages:
            first = next(messages)
        with reader(two, job.id, after=first.id) as rest:
            events += [*worker.say(job, "c"), worker.end(job, "abc")]
            assert seen([first, *rest.result(20)]) == as_messages(events)
        assert seen(whole.result(20)) == as_messages(events)
        assert wait.result(20).json()["output_text"] == "abc"


def test_a_server_that_stops_sends_its_readers_to_the_other(
    servers: list[Server], database: Database, event_log: EventLog
) -> None:
    one, two = servers
    worker = StandIn(database, event_log)
    job = worker.claim(one.submit())
    events = worker.say(job, "a", "b")
    with reader(one, job.id) as cut:
        one.process.terminate()
        begun = cut.result(20)
    events += [*worker.say(job, "c"), worker.end(job, "abc")]
    with follow(two, job.id, after=begun[-1].id) as messages:
        assert seen([*begun, *messages]) == as_messages(events)
