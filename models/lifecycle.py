"""The life of a job: every change of status, each a guarded update that says whether it happened.

Whoever holds a job writes under its fence (`attempt` and `in_progress`), so a worker that was taken for dead changes
nothing. A final status and its webhook delivery commit together.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, func, or_, select, update
from sqlalchemy.orm import Session

from models.db import utc_now
from models.job import Job, JobStatus, Outcome
from models.outbox import enqueue_delivery
from vlmq.errors import ErrorCode, VlmqError


@dataclass(frozen=True, slots=True)
class Change:
    """A change of status that has been written; the job's stream and the doorbells must hear of it."""

    job_id: str
    attempt: int
    model: str
    status: JobStatus
    event_data: dict[str, Any]
    delivery_id: str | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """A job that a worker still holds, as the lease renewal found it."""

    job_id: str
    attempt: int
    cancel_requested: bool


def _changed(session: Session, *where: ColumnElement[bool], **values: Any) -> bool:
    result = session.execute(update(Job).where(*where).values(**values).execution_options(synchronize_session=False))
    return isinstance(result, CursorResult) and result.rowcount == 1


def _fence(job_id: str, attempt: int) -> tuple[ColumnElement[bool], ...]:
    return Job.id == job_id, Job.attempt == attempt, Job.status == JobStatus.IN_PROGRESS


def _claimable(now: datetime) -> tuple[ColumnElement[bool], ...]:
    # A new job has no `available_at`: a claim whose `now` is a moment old must still find it.
    return (
        Job.status == JobStatus.QUEUED,
        or_(Job.available_at.is_(None), Job.available_at <= now),
        Job.start_deadline_at > now,
    )


def claim_next(session: Session, *, model: str, worker_id: str, lease_s: float) -> Job | None:
    """Take the queued job of this model that is next: highest priority first, then the oldest."""
    now = utc_now()
    # On PostgreSQL claims pass each other by; SQLite has one writer at a time and ignores the clause.
    job = session.scalars(
        select(Job)
        .where(Job.model == model, *_claimable(now))
        .order_by(Job.priority.desc(), Job.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).first()
    if job is None:
        return None
    claimed = _changed(
        session,
        Job.id == job.id,
        Job.status == JobStatus.QUEUED,
        status=JobStatus.IN_PROGRESS,
        attempt=Job.attempt + 1,
        worker_id=worker_id,
        lease_expires_at=now + timedelta(seconds=lease_s),
        started_at=now,
        error=None,
    )
    if not claimed:
        return None
    session.refresh(job)
    return job


def renew_leases(session: Session, job_ids: Collection[str], *, worker_id: str, lease_s: float) -> list[Held]:
    """Renew this worker's leases on these jobs and say which of them it still holds.

    Only on those it knows of: a claim that committed while its answer was lost must run out and be taken back.
    """
    mine = (Job.id.in_(job_ids), Job.worker_id == worker_id, Job.status == JobStatus.IN_PROGRESS)
    session.execute(
        update(Job)
        .where(*mine)
        .values(lease_expires_at=utc_now() + timedelta(seconds=lease_s))
        .execution_options(synchronize_session=False)
    )
    rows = session.execute(select(Job.id, Job.attempt, Job.cancel_requested_at).where(*mine))
    return [Held(id_, attempt, cancelled is not None) for id_, attempt, cancelled in rows]


def finish(session: Session, job_id: str, attempt: int, outcome: Outcome) -> Change | None:
    """End a job that the caller holds; None when it is held no longer."""
    return _end(session, job_id, attempt, outcome, *_fence(job_id, attempt))


def release(session: Session, job_id: str, attempt: int) -> Change | None:
    """Give a job back without fault: the attempt does not count."""
    changed = _changed(
        session,
        *_fence(job_id, attempt),
        status=JobStatus.QUEUED,
        releases=Job.releases + 1,
        available_at=None,
        worker_id=None,
        lease_expires_at=None,
        started_at=None,
    )
    return _queued_again(session, job_id) if changed else None


def try_again(
    session: Session, job_id: str, attempt: int, outcome: Outcome, *, after_s: float, max_attempts: int
) -> Change | None:
    """Queue a job that failed in a way that may pass, or end it with `outcome` when its attempts are used up."""
    job = session.get_one(Job, job_id, with_for_update=True)
    if job.attempts >= max_attempts:
        return finish(session, job_id, attempt, outcome)
    changed = _changed(
        session,
        *_fence(job_id, attempt),
        status=JobStatus.QUEUED,
        available_at=utc_now() + timedelta(seconds=after_s),
        worker_id=None,
        lease_expires_at=None,
        started_at=None,
        error=outcome.error,
    )
    return _queued_again(session, job_id) if changed else None


def request_cancel(session: Session, job: Job) -> Change | None:
    """Cancel a queued job at once, and ask for the end of a running one. None when nothing ended here.

    The caller's `job` is read again under a lock, so that a claim in between is seen.
    """
    session.refresh(job, with_for_update=True)
    now = utc_now()
    if job.status == JobStatus.QUEUED:
        outcome = Outcome(JobStatus.CANCELLED, output_text="", finish_reason="cancelled")
        return _end(session, job.id, job.attempt, outcome, Job.id == job.id, Job.status == JobStatus.QUEUED)
    if job.status == JobStatus.IN_PROGRESS and job.cancel_requested_at is None:
        _changed(session, *_fence(job.id, job.attempt), cancel_requested_at=now)
        session.refresh(job)
    return None


def expire_overdue(session: Session, *, limit: int = 100) -> list[Change]:
    """End queued jobs whose start deadline has passed."""
    overdue = session.scalars(
        select(Job)
        .where(Job.status == JobStatus.QUEUED, Job.start_deadline_at <= utc_now())
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    error = VlmqError(
        ErrorCode.START_DEADLINE_EXCEEDED,
        "No worker was free before the job's start deadline.",
        param="deadlines.start_s",
    ).as_dict()
    changes = [
        _end(
            session,
            job.id,
            job.attempt,
            Outcome(JobStatus.EXPIRED, error=error),
            Job.id == job.id,
            Job.status == JobStatus.QUEUED,
        )
        for job in overdue
    ]
    return [change for change in changes if change is not None]


def take_back_expired_leases(session: Session, *, max_attempts: int, limit: int = 100) -> list[Change]:
    """Queue again, or end, the jobs of workers that gave no sign of life."""
    now = utc_now()
    abandoned = session.scalars(
        select(Job)
        .where(Job.status == JobStatus.IN_PROGRESS, Job.lease_expires_at <= now)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    changes = []
    for job in abandoned:
        error = VlmqError(
            ErrorCode.WORKER_LOST, f"The worker died while it ran this job ({job.attempts} of {max_attempts} attempts)."
        ).as_dict()
        if job.cancel_requested_at is not None:
            outcome = Outcome(JobStatus.CANCELLED, finish_reason="cancelled")
            changes.append(finish(session, job.id, job.attempt, outcome))
        else:
            outcome = Outcome(JobStatus.FAILED, error=error)
            changes.append(try_again(session, job.id, job.attempt, outcome, after_s=0, max_attempts=max_attempts))
    return [change for change in changes if change is not None]


def claimable_jobs(session: Session) -> dict[str, int]:
    """How many jobs of each model wait to be claimed now."""
    rows = session.execute(select(Job.model, func.count()).where(*_claimable(utc_now())).group_by(Job.model))
    return {model: count for model, count in rows}  # noqa: C416 (rows are not typed as pairs)


def _end(session: Session, job_id: str, attempt: int, outcome: Outcome, *guard: ColumnElement[bool]) -> Change | None:
    ended = _changed(
        session,
        *guard,
        status=outcome.status,
        finished_at=utc_now(),
        lease_expires_at=None,
        output_text=outcome.output_text,
        finish_reason=outcome.finish_reason,
        usage=outcome.usage,
        timings=outcome.timings,
        manifest=outcome.manifest,
        error=outcome.error,
    )
    if not ended:
        return None
    job = session.get_one(Job, job_id, populate_existing=True)
    delivery_id = enqueue_delivery(session, job, f"job.{outcome.status.value}")
    return Change(job_id, attempt, job.model, outcome.status, job.status_data(), delivery_id)


def _queued_again(session: Session, job_id: str) -> Change:
    job = session.get_one(Job, job_id, populate_existing=True)
    return Change(job_id, job.attempt, job.model, JobStatus.QUEUED, job.status_data())
