"""Two workers of one model, and no reconciler: what waits goes to whoever has room, by the rings alone."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from models.db import Database
from models.job import Job, JobStatus
from models.worker import Worker, WorkerState
from tests.processes import GPU_WORKER, Part, until
from tests.tasks.test_gpu_worker import Bench
from vlmq.config import Settings
from vlmq.events import EventLog

LONG = {"tokens": 5000, "step_ms": 20}
SHORT = {"tokens": 2, "step_ms": 1}
PLACES = 2
# Long before a lease runs out; there is no reconciler that could ring.
SOON_S = 2.0


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue({"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]))


@pytest.fixture
def settings(settings: Settings) -> Settings:
    served = settings.models["scripted"].model_copy(update={"max_in_flight": PLACES})
    timing = settings.timing.model_copy(update={"lease_s": 30.0})
    return settings.model_copy(update={"models": {"scripted": served}, "timing": timing})


@pytest.fixture
def bench(settings: Settings, database: Database, event_log: EventLog) -> Bench:
    return Bench(settings, database, event_log)


def ready(database: Database) -> int:
    with database.read() as session:
        return len(session.scalars(select(Worker.id).where(Worker.state == WorkerState.READY)).all())


@pytest.fixture
def start(settings: Settings, database: Database, tmp_path: Path) -> Iterator[Callable[[], Part]]:
    """Starts one worker more."""
    parts: list[Part] = []

    def one_more() -> Part:
        part = Part(f"worker {len(parts)}", GPU_WORKER.format("scripted"), settings, tmp_path)
        parts.append(part.start())
        until(lambda: ready(database) == len(parts), what="a ready worker")
        return part

    yield one_more
    for part in parts:
        part.kill()


def all_run(bench: Bench, ids: list[str]) -> Callable[[], bool]:
    return lambda: all(bench.job(job_id).status is JobStatus.IN_PROGRESS for job_id in ids)


def fill(bench: Bench, count: int = PLACES) -> list[str]:
    ids = [bench.submit(LONG) for _ in range(count)]
    until(all_run(bench, ids), what="full workers")
    return ids


def test_a_worker_that_begins_takes_what_waits_beside_a_full_one(bench: Bench, start: Callable[[], Part]) -> None:
    start()
    fill(bench)
    waiting = [bench.submit(LONG) for _ in range(PLACES)]
    until(lambda: bench.doorbell_is_silent(), what="the full worker to hear all rings")
    start()
    until(all_run(bench, waiting), SOON_S, what="work for the new worker")


def test_a_full_worker_leaves_the_rings_to_an_idle_one(bench: Bench, start: Callable[[], Part]) -> None:
    start()
    fill(bench)
    start()
    for _ in range(20):
        job_id = bench.submit(SHORT)
        until(lambda job_id=job_id: bench.job(job_id).status.is_final, SOON_S, what="the job's end")  # type: ignore[misc]
    # And when both are full, rings come to an end.
    fill(bench)
    waiting = [bench.submit(SHORT, priority=priority) for priority in (1, 9, 5)]
    until(lambda: bench.doorbell_is_silent(), what="silence")
    assert [bench.job(job_id).status for job_id in waiting] == [JobStatus.QUEUED] * 3


def test_what_a_stopping_worker_gives_back_runs_on_the_other(bench: Bench, start: Callable[[], Part]) -> None:
    first = start()
    running = fill(bench)
    start()
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    until(all_run(bench, running), SOON_S, what="the jobs on the other worker")
    for job_id in running:
        assert (bench.job(job_id).attempt, bench.job(job_id).attempts) == (2, 1)


def test_rings_that_a_killed_worker_had_are_made_up_for_by_one_that_is_busy(
    bench: Bench, start: Callable[[], Part]
) -> None:
    first = start()
    fill(bench)
    start()
    waiting = [*fill(bench), *(bench.submit(SHORT) for _ in range(3))]
    until(lambda: bench.doorbell_is_silent(), what="silence")
    first.kill()
    bench.cancel(waiting[0])
    for job_id in waiting[2:]:
        assert bench.final(job_id).status is JobStatus.COMPLETED


def test_a_cancel_reaches_the_worker_that_holds_the_job_and_no_other(bench: Bench, start: Callable[[], Part]) -> None:
    start()
    start()
    ids = fill(bench, 2 * PLACES)
    assert len({bench.job(job_id).worker_id for job_id in ids}) == 2
    bench.cancel(ids[1])
    assert bench.final(ids[1]).status is JobStatus.CANCELLED
    for job_id in (ids[0], *ids[2:]):
        job: Job = bench.job(job_id)
        assert (job.status, job.attempt) == (JobStatus.IN_PROGRESS, 1)
