import json
import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from models.db import Database, utc_now
from models.delivery import Delivery
from models.job import Job, JobStatus
from models.lifecycle import request_cancel
from models.worker import Worker, WorkerState
from tests.processes import GPU_WORKER, Part, until
from vlmq.config import Settings
from vlmq.doorbell import Doorbell, gpu_queue, make_celery
from vlmq.events import EventLog, connect
from vlmq.ids import new_job_id


class Bench:
    """Submits scripted jobs straight to the database and looks at what becomes of them."""

    def __init__(self, settings: Settings, database: Database, event_log: EventLog) -> None:
        self.database, self.event_log = database, event_log
        self.doorbell = Doorbell(make_celery(settings))
        self.redis = connect(settings.redis_url)

    def submit(self, script: dict[str, Any] | str, **values: Any) -> str:
        now = utc_now()
        text = script if isinstance(script, str) else json.dumps(script)
        fields: dict[str, Any] = {
            "id": new_job_id(),
            "tenant": "default",
            "model": "scripted",
            "status": JobStatus.QUEUED,
            "request": {
                "messages": [{"role": "user", "content": [{"type": "text", "text": text}]}],
                "generation": {"max_new_tokens": 10_000},
            },
            "user_metadata": {},
            "created_at": now,
            "start_deadline_at": now + timedelta(hours=1),
            "run_s": 60.0,
        }
        job = Job(**(fields | values))
        with self.database.write() as session:
            session.add(job)
        self.doorbell.ring_job("scripted", job.id)
        return job.id

    def job(self, job_id: str) -> Job:
        with self.database.read() as session:
            return session.get_one(Job, job_id)

    def final(self, job_id: str) -> Job:
        until(lambda: self.job(job_id).status.is_final, what="the job's end")
        return self.job(job_id)

    def deltas(self, job_id: str, attempt: int = 1) -> list[str]:
        return [e.data["text"] for e in self.event_log.read(job_id) if e.type == "delta" and e.id.attempt == attempt]

    def doorbell_is_silent(self) -> bool:
        """Whether no ring is in the queue, nor on its way from one worker to the next."""
        for _ in range(10):
            if self.redis.llen(gpu_queue("scripted")):
                return False
            time.sleep(0.02)
        return True

    def cancel(self, job_id: str) -> None:
        with self.database.write() as session:
            request_cancel(session, session.get_one(Job, job_id))
        self.event_log.announce_cancel(job_id)


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """SQLite alone: tests/faults runs the same worker on PostgreSQL."""
    return sqlite_url


@pytest.fixture
def bench(settings: Settings, database: Database, event_log: EventLog) -> Bench:
    return Bench(settings, database, event_log)


@pytest.fixture
def worker(settings: Settings, database: Database, tmp_path: Path) -> Iterator[Part]:
    part = Part("gpu worker", GPU_WORKER.format("scripted"), settings, tmp_path).start()

    def ready() -> bool:
        with database.read() as session:
            return session.scalar(select(Worker.state)) == WorkerState.READY

    until(ready, what="a ready worker")
    yield part
    part.kill()


def test_a_job_ends_completed_with_its_stream_its_usage_and_its_timings(bench: Bench, worker: Part) -> None:
    job_id = bench.submit({"tokens": 20})
    job = bench.final(job_id)
    assert job.status == JobStatus.COMPLETED, worker.log()
    assert job.output_text == " ".join(f"w{n}" for n in range(1, 21))
    assert job.usage is not None
    assert job.usage["completion_tokens"] == 20
    assert job.timings is not None
    assert {"queued", "media", "prompt", "first_token", "generation", "total"} <= set(job.timings)
    until(lambda: any(event.is_final for event in bench.event_log.read(job_id)), what="the final event")
    events = bench.event_log.read(job_id)
    assert [event.id for event in events] == [(1, seq) for seq in range(1, len(events) + 1)]
    assert "".join(bench.deltas(job_id)) == job.output_text
    assert events[-1].data["output_text"] == job.output_text


def test_many_jobs_run_at_once(bench: Bench, worker: Part) -> None:
    ids = [bench.submit({"tokens": 60, "step_ms": 10}) for _ in range(4)]
    jobs = [bench.final(job_id) for job_id in ids]
    starts = [job.started_at for job in jobs if job.started_at]
    ends = [job.finished_at for job in jobs if job.finished_at]
    assert max(starts) < min(ends)


def test_a_running_job_is_cancelled_with_its_partial_text(bench: Bench, worker: Part) -> None:
    job_id = bench.submit({"tokens": 5000, "step_ms": 5})
    until(lambda: len(bench.deltas(job_id)) > 3, what="the first tokens")
    bench.cancel(job_id)
    job = bench.final(job_id)
    assert (job.status, job.finish_reason) == (JobStatus.CANCELLED, "cancelled")
    assert job.output_text == "".join(bench.deltas(job_id))
    assert job.usage is not None
    assert 3 < job.usage["completion_tokens"] < 5000


def test_a_job_that_runs_into_its_deadline_fails_with_its_partial_text(bench: Bench, worker: Part) -> None:
    job = bench.final(bench.submit({"tokens": 5000, "step_ms": 5}, run_s=0.5))
    assert (job.status, job.finish_reason) == (JobStatus.FAILED, "deadline")
    assert job.error is not None
    assert job.error["code"] == "run_deadline_exceeded"
    assert job.output_text


def test_a_failure_that_may_pass_is_tried_three_times(bench: Bench, worker: Part) -> None:
    job_id = bench.submit({"tokens": 5, "fail_at": 3})

    def ended() -> bool:
        bench.doorbell.ring_job("scripted", job_id)  # as the reconciler does when a retry is due
        return bench.job(job_id).status.is_final

    until(ended, what="the job's end")
    job = bench.job(job_id)
    assert (job.status, job.attempts) == (JobStatus.FAILED, 3)
    assert job.error is not None
    assert job.error["code"] == "engine_error"


def test_a_prompt_that_cannot_be_run_fails_at_once(bench: Bench, worker: Part) -> None:
    job = bench.final(bench.submit({"nonsense": 1}))
    assert (job.status, job.attempts) == (JobStatus.FAILED, 1)
    assert job.error is not None
    assert job.error["code"] == "invalid_request"


def test_a_missing_file_fails_the_job_and_names_its_part(bench: Bench, worker: Part) -> None:
    content = [{"type": "image", "file_id": "file_none"}, {"type": "text", "text": "What?"}]
    request = {"messages": [{"role": "user", "content": content}], "generation": {}}
    job = bench.final(bench.submit("", request=request))
    assert job.error is not None
    assert (job.error["code"], job.error["param"]) == ("file_not_found", "messages.0.content.0.file_id")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_worker_that_is_told_to_end_gives_its_jobs_back_unspent(
    bench: Bench, worker: Part, number: signal.Signals
) -> None:
    job_id = bench.submit({"tokens": 5000, "step_ms": 5})
    until(lambda: len(bench.deltas(job_id)) > 3, what="the first tokens")
    worker.signal(number)
    assert worker.wait() == 0, worker.log()
    job = bench.job(job_id)
    assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)
    with bench.database.read() as session:
        assert session.scalar(select(Worker)) is None
    assert bench.event_log.read(job_id)[-1].data["status"] == "queued"


def test_a_worker_that_gives_back_a_job_whose_thread_is_stuck_rings_for_it(
    bench: Bench, worker: Part, settings: Settings
) -> None:
    job_id = bench.submit({"tokens": 20, "hang_at": 10})
    until(lambda: len(bench.deltas(job_id)) == 9, what="the tokens before the engine hangs")
    worker.signal(signal.SIGTERM)
    assert worker.wait(8) == 0, worker.log()
    job = bench.job(job_id)
    assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)
    assert connect(settings.redis_url).llen(gpu_queue("scripted")) == 1


def test_a_worker_ends_in_time_although_the_database_does_not_answer(bench: Bench, worker: Part) -> None:
    job_id = bench.submit({"tokens": 5000, "step_ms": 5})
    until(lambda: len(bench.deltas(job_id)) > 3, what="the first tokens")
    # SQLite has one writer at a time.
    with bench.database.write():
        worker.signal(signal.SIGTERM)
        assert worker.wait(8) == 0, worker.log()
    assert bench.job(job_id).status == JobStatus.IN_PROGRESS


def test_a_worker_that_lost_its_job_while_it_slept_writes_nothing(bench: Bench, worker: Part) -> None:
    job_id = bench.submit({"tokens": 400, "step_ms": 5})
    until(lambda: len(bench.deltas(job_id)) > 3, what="the first tokens")
    worker.signal(signal.SIGSTOP)
    with bench.database.write() as session:
        job = session.get_one(Job, job_id)
        job.attempt, job.worker_id, job.lease_expires_at = 2, "another", utc_now() + timedelta(hours=1)
    worker.signal(signal.SIGCONT)
    other = bench.submit({"tokens": 5})
    bench.final(other)
    until(lambda: "taken back" in worker.log(), what="the worker's notice")
    assert bench.job(job_id).status == JobStatus.IN_PROGRESS
    assert bench.job(job_id).output_text is None


def test_webhooks_about_progress_are_queued_for_those_who_subscribe(bench: Bench, worker: Part) -> None:
    events = ["job.started", "job.progress", "job.output", "job.completed"]
    job_id = bench.submit({"tokens": 300, "step_ms": 5}, webhook={"url": "http://127.0.0.1:1/hook", "events": events})
    job = bench.final(job_id)
    with bench.database.read() as session:
        deliveries = list(session.scalars(select(Delivery).where(Delivery.job_id == job_id).order_by(Delivery.id)))
    assert {delivery.event for delivery in deliveries} == set(events)
    output = [delivery.payload["data"] for delivery in deliveries if delivery.event == "job.output"]
    assert "".join(part["text"] for part in output) == job.output_text
    assert deliveries[-1].event == "job.completed"
