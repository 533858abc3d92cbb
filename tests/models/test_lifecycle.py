from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from sqlalchemy import event, select

from models.claims import claim_next, claimable_jobs, next_runs_alone
from models.db import Database, utc_now
from models.delivery import Delivery
from models.job import Job, JobStatus, Outcome
from models.lifecycle import (
    expire_overdue,
    finish,
    release,
    renew_leases,
    request_cancel,
    take_back_expired_leases,
    try_again,
)
from vlmq.ids import new_job_id

COMPLETED = Outcome(JobStatus.COMPLETED, output_text="a red circle", finish_reason="stop")
CANCELLED = Outcome(JobStatus.CANCELLED, output_text="a red", finish_reason="cancelled")
FAILED = Outcome(JobStatus.FAILED, error={"code": "engine_error", "message": "…"})


def insert_job(database: Database, **values: object) -> str:
    now = utc_now()
    fields: dict[str, object] = {
        "id": new_job_id(),
        "tenant": "default",
        "model": "m",
        "status": JobStatus.QUEUED,
        "request": {"messages": []},
        "user_metadata": {},
        "webhook": None,
        "created_at": now,
        "start_deadline_at": now + timedelta(hours=1),
        "run_s": 60.0,
    }
    job = Job(**(fields | values))
    with database.write() as session:
        session.add(job)
    return job.id


def claim(database: Database, worker_id: str = "w1", lease_s: float = 30.0, *, alone: bool = True) -> Job | None:
    with database.write() as session:
        return claim_next(session, model="m", worker_id=worker_id, lease_s=lease_s, alone=alone)


def lose_worker(database: Database) -> None:
    assert claim(database, lease_s=-1) is not None
    with database.write() as session:
        take_back_expired_leases(session, max_attempts=3)


def get(database: Database, job_id: str) -> Job:
    with database.read() as session:
        return session.get_one(Job, job_id)


def test_a_job_is_claimed_once(database: Database) -> None:
    job_id = insert_job(database)
    claimed = claim(database)
    assert claimed is not None
    assert (claimed.id, claimed.attempt, claimed.status) == (job_id, 1, JobStatus.IN_PROGRESS)
    assert claim(database, "w2") is None


def test_the_highest_priority_is_claimed_first_and_then_the_oldest(database: Database) -> None:
    ids = [insert_job(database, priority=priority) for priority in (5, 5, 9)]
    assert [getattr(claim(database), "id", None) for _ in range(3)] == [ids[2], ids[0], ids[1]]


def test_a_finished_job_cannot_be_finished_again(database: Database) -> None:
    job_id = insert_job(database)
    claim(database)
    with database.write() as session:
        assert finish(session, job_id, 1, COMPLETED) is not None
    with database.write() as session:
        assert finish(session, job_id, 1, FAILED) is None
    assert get(database, job_id).output_text == "a red circle"


def test_a_worker_that_lost_its_lease_writes_nothing(database: Database) -> None:
    job_id = insert_job(database)
    claim(database, "w1", lease_s=-1)
    with database.write() as session:
        (change,) = take_back_expired_leases(session, max_attempts=3)
    assert change.status == JobStatus.QUEUED
    second = claim(database, "w2")
    assert second is not None
    assert second.attempt == 2
    with database.write() as session:
        assert finish(session, job_id, 1, COMPLETED) is None
        assert release(session, job_id, 1, CANCELLED) is None
    assert get(database, job_id).status == JobStatus.IN_PROGRESS
    assert get(database, job_id).worker_id == "w2"


def test_a_release_costs_no_attempt_but_moves_the_fence(database: Database) -> None:
    job_id = insert_job(database)
    claim(database)
    with database.write() as session:
        assert release(session, job_id, 1, CANCELLED) is not None
    assert get(database, job_id).attempts == 0
    again = claim(database)
    assert again is not None
    assert (again.attempt, again.attempts) == (2, 1)


def test_the_first_crash_does_not_count_as_another_job_may_have_caused_it(database: Database) -> None:
    job_id = insert_job(database)
    lose_worker(database)
    job = get(database, job_id)
    assert (job.status, job.crashes, job.attempt, job.attempts) == (JobStatus.QUEUED, 1, 1, 0)
    assert job.error is not None
    assert job.error["code"] == "worker_lost"


def test_a_job_whose_workers_keep_dying_fails_after_its_attempts_alone(database: Database) -> None:
    job_id = insert_job(database)
    for _ in range(4):
        assert get(database, job_id).status == JobStatus.QUEUED
        lose_worker(database)
    job = get(database, job_id)
    assert (job.status, job.crashes, job.attempts) == (JobStatus.FAILED, 4, 3)
    assert job.error is not None
    assert job.error["code"] == "worker_lost"
    assert "3 of 3" in job.error["message"]


def test_a_job_that_lost_its_worker_goes_only_to_a_worker_that_holds_no_other(database: Database) -> None:
    crashed = insert_job(database)
    lose_worker(database)
    harmless = insert_job(database)
    assert claim(database, alone=False) is None
    with database.read() as session:
        assert next_runs_alone(session, model="m")
    assert getattr(claim(database, "w2", alone=True), "id", None) == crashed
    with database.read() as session:
        assert not next_runs_alone(session, model="m")
    assert getattr(claim(database, alone=False), "id", None) == harmless
    with database.read() as session:
        assert not next_runs_alone(session, model="m")


def test_a_cancelled_job_whose_worker_dies_ends_cancelled(database: Database) -> None:
    job_id = insert_job(database)
    claim(database, lease_s=-1)
    with database.write() as session:
        request_cancel(session, session.get_one(Job, job_id))
    with database.write() as session:
        (change,) = take_back_expired_leases(session, max_attempts=3)
    assert change.status == JobStatus.CANCELLED
    assert get(database, job_id).error is None


def test_a_retry_waits_and_then_counts(database: Database) -> None:
    job_id = insert_job(database)
    claim(database)
    with database.write() as session:
        change = try_again(session, job_id, 1, FAILED, after_s=60, max_attempts=3)
    assert change is not None
    assert change.status == JobStatus.QUEUED
    assert claim(database) is None
    assert get(database, job_id).error == FAILED.error


def test_cancelling_a_queued_job_ends_it(database: Database) -> None:
    job_id = insert_job(database)
    with database.write() as session:
        change = request_cancel(session, session.get_one(Job, job_id))
    assert change is not None
    assert get(database, job_id).status == JobStatus.CANCELLED
    assert claim(database) is None


def test_cancelling_a_running_job_is_seen_at_the_next_renewal(database: Database) -> None:
    job_id = insert_job(database)
    claim(database)
    with database.write() as session:
        assert request_cancel(session, session.get_one(Job, job_id)) is None
    with database.write() as session:
        (held,) = renew_leases(session, [job_id], worker_id="w1", lease_s=30)
    assert held.cancel_requested


def test_cancelling_a_final_job_changes_nothing(database: Database) -> None:
    job_id = insert_job(database)
    claim(database)
    with database.write() as session:
        finish(session, job_id, 1, COMPLETED)
    with database.write() as session:
        assert request_cancel(session, session.get_one(Job, job_id)) is None
    assert get(database, job_id).status == JobStatus.COMPLETED


def test_a_job_that_is_given_back_after_its_cancel_ends_cancelled_with_its_text(database: Database) -> None:
    job_id = insert_job(database)
    claim(database)
    with database.write() as session:
        request_cancel(session, session.get_one(Job, job_id))
    with database.write() as session:
        change = release(session, job_id, 1, CANCELLED)
    assert change is not None
    job = get(database, job_id)
    assert (job.status, job.output_text, job.attempts) == (JobStatus.CANCELLED, "a red", 1)


def test_a_job_that_fails_after_its_cancel_is_not_tried_again(database: Database) -> None:
    job_id = insert_job(database)
    claim(database)
    with database.write() as session:
        request_cancel(session, session.get_one(Job, job_id))
    with database.write() as session:
        try_again(session, job_id, 1, FAILED, after_s=0, max_attempts=3)
    job = get(database, job_id)
    assert (job.status, job.finish_reason, job.error) == (JobStatus.CANCELLED, "cancelled", None)


def test_a_job_that_has_started_once_has_kept_its_start_deadline(database: Database) -> None:
    job_id = insert_job(database)
    assert claim(database) is not None
    with database.write() as session:
        try_again(session, job_id, 1, FAILED, after_s=0, max_attempts=3)
        session.get_one(Job, job_id).start_deadline_at = utc_now() - timedelta(seconds=1)
    with database.write() as session:
        assert expire_overdue(session) == []
    assert claim(database) is not None


def test_a_claim_and_an_end_are_one_statement_each(database: Database) -> None:
    job_id = insert_job(database)
    statements: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    claim(database)
    with database.write() as session:
        finish(session, job_id, 1, COMPLETED)
    assert [statement.split()[0] for statement in statements if not statement.startswith("BEGIN")] == ["UPDATE"] * 2


def test_claims_at_the_same_moment_take_different_jobs(database: Database) -> None:
    ids = [insert_job(database) for _ in range(40)]
    with ThreadPoolExecutor(8) as pool:
        claimed = [job.id for job in pool.map(lambda _: claim(database), ids) if job is not None]
    assert sorted(claimed) == ids


def test_a_job_that_starts_too_late_expires(database: Database) -> None:
    job_id = insert_job(database, start_deadline_at=utc_now() - timedelta(seconds=1))
    assert claim(database) is None
    with database.write() as session:
        (change,) = expire_overdue(session)
    assert change.status == JobStatus.EXPIRED
    assert get(database, job_id).status == JobStatus.EXPIRED


def test_the_final_status_and_its_webhook_commit_together(database: Database) -> None:
    webhook = {"url": "https://example.com/hook", "events": ["job.completed"]}
    job_id = insert_job(database, webhook=webhook)
    claim(database)
    with database.write() as session:
        change = finish(session, job_id, 1, COMPLETED)
    with database.read() as session:
        (delivery,) = session.scalars(select(Delivery))
    assert change is not None
    assert change.delivery_id == delivery.id
    assert delivery.payload["type"] == "job.completed"
    assert delivery.payload["data"]["output_text"] == "a red circle"


def test_only_events_that_the_webhook_names_are_delivered(database: Database) -> None:
    job_id = insert_job(database, webhook={"url": "https://example.com/hook", "events": ["job.failed"]})
    claim(database)
    with database.write() as session:
        change = finish(session, job_id, 1, COMPLETED)
    assert change is not None
    assert change.delivery_id is None


def test_claimable_jobs_are_counted_by_model(database: Database) -> None:
    insert_job(database)
    insert_job(database)
    insert_job(database, model="other")
    insert_job(database, available_at=utc_now() + timedelta(minutes=1))
    with database.read() as session:
        assert claimable_jobs(session) == {"m": 2, "other": 1}
