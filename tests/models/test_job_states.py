"""Whatever happens to jobs, in whatever order: what must hold of their rows, told by a model of them in memory."""

import shutil
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import select
from sqlalchemy.orm import Session

from models.claims import claim_next, next_runs_alone
from models.db import Database, utc_now
from models.delivery import Delivery
from models.job import Job, JobStatus, Outcome
from models.lifecycle import (
    Change,
    expire_overdue,
    finish,
    release,
    renew_leases,
    request_cancel,
    take_back_expired_leases,
    try_again,
)
from tests.models.known_job import MAX_ATTEMPTS, Known
from tests.tasks.rows import insert_job

LEASE_S = 600.0
PAST = timedelta(hours=-1)
FINAL_EVENTS = [f"job.{status.value}" for status in JobStatus if status.is_final]
T = TypeVar("T")
RECENT = st.integers(0, 2)
WORKERS = st.sampled_from(["w1", "w2"])
COMPLETED = Outcome(JobStatus.COMPLETED, output_text="done", finish_reason="stop")
BROKEN = Outcome(JobStatus.FAILED, output_text="half", error={"code": "engine_error"})

Claim = tuple[str, int, str]  # job, fence, worker: kept by a worker long after it lost the job


class Jobs(RuleBasedStateMachine):
    """Workers act on every claim they ever made; only the current ones may change anything."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="vlmq-states-"))
        shutil.copy(self.template, self.folder / "vlmq.db")
        self.database = Database(f"sqlite:///{self.folder / 'vlmq.db'}")
        self.known: dict[str, Known] = {}
        self.claims: list[Claim] = []

    def teardown(self) -> None:
        self.database.dispose()
        shutil.rmtree(self.folder)

    # Few, so that much happens to each.
    @precondition(lambda self: sum(not known.status.is_final for known in self.known.values()) < 3)
    @rule(hears=st.lists(st.sampled_from(FINAL_EVENTS), unique=True), priority=st.integers(0, 9))
    def create(self, hears: list[str], priority: int) -> None:
        webhook = {"url": "https://example.com/hook", "events": hears} if hears else None
        job_id = insert_job(self.database, webhook=webhook, priority=priority, available_at=None)
        self.known[job_id] = Known(hears, priority)

    @rule(worker=WORKERS)
    def claim(self, worker: str) -> None:
        held = self._held_by(worker)
        if any(known.crashes for known in held):
            return  # its claiming thread is busy with that job (tasks/run_job.py)
        alone = not held
        with self.database.write() as session:
            job = claim_next(session, model="scripted", worker_id=worker, lease_s=LEASE_S, alone=alone)
            runs_alone = next_runs_alone(session, model="scripted") if job is None else False
        waiting = [
            job_id for job_id, known in self.known.items() if known.status == JobStatus.QUEUED and not known.too_late
        ]
        first = min(waiting, key=lambda job_id: (-self.known[job_id].priority, job_id), default=None)
        if job is None:
            assert runs_alone == (first is not None)
            assert first is None or (self.known[first].crashes and not alone)
            return
        assert job.id == first
        known = self.known[job.id]
        known.status, known.holder, known.lease_over = JobStatus.IN_PROGRESS, worker, False
        known.fence += 1
        assert job.attempt == known.fence
        self.claims.append((job.id, job.attempt, worker))

    @precondition(lambda self: self.claims)
    @rule(number=RECENT)
    def renew(self, number: int) -> None:
        claim = self._recent(self.claims, number)
        job_id, _, worker = claim
        with self.database.write() as session:
            held = renew_leases(session, [job_id], worker_id=worker, lease_s=LEASE_S)
        known = self.known[job_id]
        if known.holder != worker:
            assert held == []
            return
        assert [(row.attempt, row.cancel_requested) for row in held] == [(known.fence, known.cancel_wanted)]
        known.lease_over = False

    @precondition(lambda self: self.claims)
    @rule(number=RECENT)
    def finish(self, number: int) -> None:
        claim = self._recent(self.claims, number)
        known, change = self._act(claim, lambda session: finish(session, claim[0], claim[1], COMPLETED))
        if known is not None:
            known.ended(change, JobStatus.COMPLETED)

    @precondition(lambda self: self.claims)
    @rule(number=RECENT)
    def give_back(self, number: int) -> None:
        claim = self._recent(self.claims, number)
        known, change = self._act(claim, lambda session: release(session, claim[0], claim[1], COMPLETED))
        if known is None:
            return
        if known.cancel_wanted:
            known.ended(change, JobStatus.CANCELLED)
        else:
            known.given_back += 1
            known.queued_again(change)

    @precondition(lambda self: self.claims)
    @rule(number=RECENT)
    def fail(self, number: int) -> None:
        claim = self._recent(self.claims, number)

        def try_once_more(session: Session) -> Change | None:
            return try_again(session, claim[0], claim[1], BROKEN, after_s=0, max_attempts=MAX_ATTEMPTS)

        known, change = self._act(claim, try_once_more)
        if known is not None:
            known.came_to_nothing(change)

    @precondition(lambda self: self.known)
    @rule(number=RECENT)
    def cancel(self, number: int) -> None:
        job_id = self._recent(list(self.known), number)
        known = self.known[job_id]
        with self.database.write() as session:
            change = request_cancel(session, session.get_one(Job, job_id))
        if known.status == JobStatus.QUEUED:
            known.ended(change, JobStatus.CANCELLED)
        else:
            assert change is None
            known.cancel_wanted |= known.status == JobStatus.IN_PROGRESS

    @precondition(lambda self: self.known)
    @rule(number=RECENT)
    def stay_silent(self, number: int) -> None:
        """The holder gives no sign of life until its lease is over."""
        job_id = self._recent(list(self.known), number)
        if self.known[job_id].status == JobStatus.IN_PROGRESS:
            self.known[job_id].lease_over = True
            with self.database.write() as session:
                session.get_one(Job, job_id).lease_expires_at = utc_now() + PAST

    @rule()
    def take_back(self) -> None:
        with self.database.write() as session:
            changes = {change.job_id: change for change in take_back_expired_leases(session, max_attempts=MAX_ATTEMPTS)}
        assert changes.keys() == {job_id for job_id, known in self.known.items() if known.holder and known.lease_over}
        for job_id, change in changes.items():
            self.known[job_id].lost_its_worker(change)

    @precondition(lambda self: self.known)
    @rule(number=RECENT)
    def come_too_late(self, number: int) -> None:
        """The start deadline passes, which means nothing to a job that was started once."""
        job_id = self._recent(list(self.known), number)
        known = self.known[job_id]
        known.too_late = known.fence == 0
        if not known.status.is_final:
            with self.database.write() as session:
                session.get_one(Job, job_id).start_deadline_at = utc_now() + PAST

    @rule()
    def expire(self) -> None:
        with self.database.write() as session:
            changes = {change.job_id: change for change in expire_overdue(session)}
        overdue = {
            job_id for job_id, known in self.known.items() if known.status == JobStatus.QUEUED and known.too_late
        }
        assert changes.keys() == overdue
        for job_id, change in changes.items():
            self.known[job_id].ended(change, JobStatus.EXPIRED)

    @invariant()
    def the_rows_are_what_the_model_says(self) -> None:
        with self.database.read() as session:
            jobs = {job.id: job for job in session.scalars(select(Job))}
            deliveries = list(session.execute(select(Delivery.job_id, Delivery.event)))
        assert jobs.keys() == self.known.keys()
        for job_id, known in self.known.items():
            job = jobs[job_id]
            assert (job.status, job.attempt, job.attempts) == (known.status, known.fence, known.tries)
            assert job.crashes == known.crashes
            assert job.attempts <= MAX_ATTEMPTS
            assert (job.lease_expires_at is not None) == (job.status == JobStatus.IN_PROGRESS)
            if job.status == JobStatus.IN_PROGRESS:
                assert job.worker_id == known.holder
            row = tuple(getattr(job, column.key) for column in Job.__mapper__.column_attrs)
            if known.status.is_final:
                known.row_at_its_end = known.row_at_its_end or row
                assert row == known.row_at_its_end, "a final row changed"
            end = f"job.{known.status.value}"
            assert [event for owner, event in deliveries if owner == job_id] == [end] * (end in known.hears)

    @invariant()
    def a_job_that_has_killed_a_worker_has_one_to_itself(self) -> None:
        for worker in ("w1", "w2"):
            held = self._held_by(worker)
            assert len(held) <= 1 or not any(known.crashes for known in held)

    def _held_by(self, worker: str) -> list[Known]:
        return [known for known in self.known.values() if known.holder == worker]

    def _recent(self, things: list[T], number: int) -> T:
        return things[-1 - number % len(things)]

    def _act(self, claim: Claim, transition: Callable[[Session], Change | None]) -> tuple[Known | None, Change | None]:
        """Do something under a claim's fence; the job if that was the current one."""
        job_id, fence, _ = claim
        with self.database.write() as session:
            change = transition(session)
        known = self.known[job_id]
        if known.fence != fence or known.status != JobStatus.IN_PROGRESS:
            assert change is None
            return None, None
        return known, change


def run(template: Path, *, examples: int, steps: int, derandomize: bool) -> None:
    Jobs.template = template
    run_state_machine_as_test(
        Jobs,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=derandomize,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_jobs_keep_their_rules_whatever_happens(sqlite_template: Path) -> None:
    run(sqlite_template, examples=30, steps=50, derandomize=True)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1200)
def test_jobs_keep_their_rules_for_ten_thousand_steps(sqlite_template: Path) -> None:
    run(sqlite_template, examples=200, steps=50, derandomize=False)
