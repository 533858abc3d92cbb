import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from models.db import Database
from tests.faults.stack import Stack, free_port, running_stack
from tests.processes import until
from vlmq.client import Client, Event
from vlmq.config import Settings, Webhooks
from vlmq.signing import new_master_secret

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

JOBS = 200
KILLS = 3
TOKENS = 60


@pytest.fixture
def stack(settings: Settings, database: Database, tmp_path: Path) -> Iterator[Stack]:
    webhooks = Webhooks(secret=SecretStr(new_master_secret()), retry_after_s=(0.5, 1, 2, 4))
    settings = settings.model_copy(update={"port": free_port(), "webhooks": webhooks})
    with running_stack(settings, database, tmp_path) as stack:
        yield stack


class Follower(threading.Thread):
    """Follows one job's stream over HTTP from before it starts to its end."""

    def __init__(self, url: str, job_id: str) -> None:
        super().__init__(daemon=True)
        self._url, self._job_id = url, job_id
        self.events: list[Event] = []
        self.start()

    def run(self) -> None:
        for event in Client(self._url).events(self._job_id):
            self.events.append(event)


@pytest.mark.small
def test_200_jobs_survive_three_kills_of_their_worker(stack: Stack) -> None:
    ids = stack.submit(JOBS, {"tokens": TOKENS, "step_ms": 10})
    followers = [Follower(stack.url, job_id) for job_id in ids[:: JOBS // 20]]
    for kill in range(1, KILLS + 1):
        aim = JOBS * kill // (KILLS + 2)
        until(lambda aim=aim: stack.finished() >= aim, 90, what=f"the end of {aim} jobs")  # type: ignore[misc]
        stack.gpu.kill()
        stack.gpu.start()
    until(lambda: stack.finished() == JOBS, 180, what="the end of all jobs")
    until(lambda: stack.undelivered() == 0, 60, what="the delivery of all webhooks")
    # The last events follow their commits by a moment.
    time.sleep(1)
    stack.check(ids, TOKENS)
    for follower in followers:
        follower.join(10)
        last = follower.events[-1]
        assert last.is_final
        own = [event for event in follower.events if event.attempt == last.attempt]
        assert [int(event.id.partition("-")[2]) for event in own] == list(range(1, len(own) + 1))
        assert "".join(event.data["text"] for event in own if event.type == "delta") == last.data["output_text"]
