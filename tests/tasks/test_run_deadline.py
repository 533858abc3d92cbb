"""What a job's run deadline counts, and how its timings add up, on an engine that runs one job at a time."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from engine.checkpoint import load_checkpoint
from engine.generate_engine import GenerateEngine
from engine.types import CheckpointSettings
from models.db import Database
from models.job import Job, JobStatus
from models.lifecycle import request_cancel
from tests.processes import until
from tests.tasks.rows import get_job, insert_job
from tests.tasks.test_run_job import Desk
from vlmq.config import BUNDLED_CHECKPOINT, Settings, Timing
from vlmq.events import EventLog

PARTS = ("queued", "media", "prompt", "engine_wait", "generation")


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def desk(settings: Settings, database: Database, event_log: EventLog) -> Iterator[Desk]:
    torch.set_num_threads(1)
    engine = GenerateEngine(load_checkpoint(CheckpointSettings(str(BUNDLED_CHECKPOINT), device="cpu")))
    quiet = settings.model_copy(update={"timing": Timing(lease_s=600, heartbeat_s=300)})
    desk = Desk(quiet, database, event_log, engine)
    yield desk
    desk.close()


def asking(tokens: int) -> dict[str, Any]:
    content = [{"type": "text", "text": "Hello"}]
    generation = {"max_new_tokens": tokens, "min_new_tokens": tokens}
    return {"messages": [{"role": "user", "content": content}], "generation": generation}


def timings(job: Job) -> dict[str, float]:
    assert job.timings is not None
    return job.timings


def test_waiting_for_the_job_before_it_does_not_count_and_is_told_apart(desk: Desk) -> None:
    first = insert_job(desk.database, request=asking(1500))
    threads = [desk.start()]
    until(lambda: bool(desk.text(first)), what="the first job's text")
    second = insert_job(desk.database, request=asking(3), run_s=0.6)
    late = insert_job(desk.database, request=asking(1500), run_s=0.6)
    threads += [desk.start(), desk.start()]
    until(lambda: len(desk.held.all()) == 3, what="three jobs in the worker")
    waited_from = time.monotonic()
    until(lambda: time.monotonic() > waited_from + 0.8, what="more than their whole time")
    desk.held.cancel(first)
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    done, ended = get_job(desk.database, second), get_job(desk.database, late)
    assert (done.status, done.finish_reason) == (JobStatus.COMPLETED, "length")
    assert (ended.status, ended.finish_reason) == (JobStatus.FAILED, "deadline")
    assert ended.output_text
    for job in (done, ended):
        assert timings(job)["engine_wait"] > 0.75
        assert timings(job)["total"] == pytest.approx(sum(timings(job)[part] for part in PARTS), abs=0.2)
    assert 0.4 < timings(ended)["generation"] < 5
    assert timings(done)["first_token"] <= timings(done)["generation"] < timings(done)["engine_wait"]


def test_a_job_that_is_cancelled_while_it_waits_says_how_long(desk: Desk) -> None:
    first = insert_job(desk.database, request=asking(1500))
    threads = [desk.start()]
    until(lambda: bool(desk.text(first)), what="the first job's text")
    second = insert_job(desk.database, request=asking(3))
    threads.append(desk.start())
    until(lambda: any(event.type == "progress" for event in desk.event_log.read(second)), what="the second in line")
    with desk.database.write() as session:
        request_cancel(session, session.get_one(Job, second))
    for job_id in (second, first):
        desk.held.cancel(job_id)
    for thread in threads:
        thread.join(30)
    job = get_job(desk.database, second)
    assert (job.status, job.output_text) == (JobStatus.CANCELLED, "")
    assert timings(job)["engine_wait"] > 0
    assert timings(job)["generation"] == 0
