"""The life of a job from its claim on: every change of status, each a guarded update that says whether it happened.

Whoever holds a job writes under its fence (`attempt` and `in_progress`), so a worker that was taken for dead changes
nothing. A final status and its webhook delivery commit together.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from models.claims import too_late
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


def _update(session: Session, *where: ColumnElement[bool], **values: Any) -> Job | None:
    """Change the one job that all of `where` holds for; the job as it is now, or None when there is none."""
    return session.scalars(
        update(Job).where(*where).values(**values).returning(Job),
        execution_options={"synchronize_session": False, "populate_existing": True},
    ).one_or_none()


def _fence(job_id: str, attempt: int) -> tuple[ColumnElement[bool], ...]:
    return Job.id == job_id, Job.attempt == attempt, Job.status == JobStatus.IN_PROGRESS


def _queued(job: Job) -> tuple[ColumnElement[bool], ...]:
    return Job.id == job.id, Job.status == JobStatus.QUEUED


def renew_leases(session: Session, job_ids: Collection[str], *, worker_id: str, lease_s: float) -> list[Held]:
    """Renew this worker's leases on these jobs and say which of them it still holds.

    Only on those it knows of: a claim that committed while its answer was lost must run out and be taken back.
    """
    rows = session.execute(
        update(Job)
        .where(Job.id.in_(job_ids), Job.worker_id == worker_id, Job.status == JobStatus.IN_PROGRESS)
        .values(lease_expires_at=utc_now() + timedelta(seconds=lease_s))
        .returning(Job.id, Job.attempt, Job.cancel_requested_at)
        .execution_options(synchronize_session=False)
    )
    return [Held(id_, attempt, cancelled is not None) for id_, attempt, cancelled in rows]


def is_held(session: Session, job_id: str, attempt: int) -> bool:
    """Whether this attempt still holds the job, which stays so until the transaction ends."""
    return session.scalar(select(Job.id).where(*_fence(job_id, attempt)).with_for_update()) is not None


def finish(session: Session, job_id: str, attempt: int, outcome: Outcome) -> Change | None:
    """End a job that the caller holds; None when it is held no longer."""
    return _end(session, outcome, *_fence(job_id, attempt))


def release(session: Session, job_id: str, attempt: int, outcome: Outcome) -> Change | None:
    """Give a job back without fault: the attempt does not count.

    If its end was asked for, it is cancelled instead, with the text and the counts of `outcome`.
    """
    return _queue_again(session, job_id, attempt, releases=Job.releases + 1, available_at=None) or _cancel(
        session, job_id, attempt, outcome
    )


def try_again(
    session: Session, job_id: str, attempt: int, outcome: Outcome, *, after_s: float, max_attempts: int
) -> Change | None:
    """Queue a job that failed in a way that may pass.

    It ends with `outcome` when its attempts are used up, and is cancelled if that was asked for.
    """
    tries_left = Job.attempt - Job.releases < max_attempts
    available_at = utc_now() + timedelta(seconds=after_s)
    return (
        _queue_again(session, job_id, attempt, tries_left, available_at=available_at, error=outcome.error)
        or _cancel(session, job_id, attempt, outcome)
        or finish(session, job_id, attempt, outcome)
    )


def _queue_again(
    session: Session, job_id: str, attempt: int, *guard: ColumnElement[bool], **values: Any
) -> Change | None:
    job = _update(
        session,
        *_fence(job_id, attempt),
        Job.cancel_requested_at.is_(None),
        *guard,
        status=JobStatus.QUEUED,
        worker_id=None,
        lease_expires_at=None,
        started_at=None,
        **values,
    )
    return None if job is None else Change(job_id, attempt, job.model, job.status, job.status_data())


def _cancel(session: Session, job_id: str, attempt: int, outcome: Outcome) -> Change | None:
    cancelled = replace(outcome, status=JobStatus.CANCELLED, finish_reason="cancelled", error=None)
    return _end(session, cancelled, *_fence(job_id, attempt), Job.cancel_requested_at.is_not(None))


def request_cancel(session: Session, job: Job) -> Change | None:
    """Cancel a queued job at once, and ask for the end of a running one. None when nothing ended here.

    The caller's `job` is read again under a lock, so that a claim in between is seen.
    """
    session.refresh(job, with_for_update=True)
    if job.status == JobStatus.QUEUED:
        return _end(session, Outcome(JobStatus.CANCELLED, finish_reason="cancelled"), *_queued(job))
    if job.status == JobStatus.IN_PROGRESS and job.cancel_requested_at is None:
        _update(session, *_fence(job.id, job.attempt), cancel_requested_at=utc_now())
    return None


def expire_overdue(session: Session, *, limit: int = 100) -> list[Change]:
    """End queued jobs whose start deadline has passed."""
    overdue = session.scalars(
        select(Job)
        .where(Job.status == JobStatus.QUEUED, too_late(utc_now()))
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    error = VlmqError(
        ErrorCode.START_DEADLINE_EXCEEDED,
        "No worker was free before the job's start deadline.",
        param="deadlines.start_s",
    ).as_dict()
    changes = [_end(session, Outcome(JobStatus.EXPIRED, error=error), *_queued(job)) for job in overdue]
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
    changes = [_take_back(session, job, max_attempts) for job in abandoned]
    return [change for change in changes if change is not None]


def _take_back(session: Session, job: Job, max_attempts: int) -> Change | None:
    ran_alone = job.runs_alone
    if _update(session, *_fence(job.id, job.attempt), crashes=Job.crashes + 1) is None:
        return None
    if ran_alone:
        outcome = _lost(f"The worker died while it ran this job ({job.attempts} of {max_attempts} attempts).")
        return try_again(session, job.id, job.attempt, outcome, after_s=0, max_attempts=max_attempts)
    # A job that ran beside it may be to blame, so this does not count; the next attempt, which runs alone, will tell.
    outcome = _lost("The worker died while it ran this job, perhaps because of another; from now on it runs alone.")
    return _queue_again(
        session, job.id, job.attempt, releases=Job.releases + 1, available_at=None, error=outcome.error
    ) or _cancel(session, job.id, job.attempt, outcome)


def _lost(message: str) -> Outcome:
    return Outcome(JobStatus.FAILED, error=VlmqError(ErrorCode.WORKER_LOST, message).as_dict())


def _end(session: Session, outcome: Outcome, *guard: ColumnElement[bool]) -> Change | None:
    job = _update(
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
        outputs=outcome.outputs,
        degraded=outcome.degraded,
        prompt=outcome.prompt,
    )
    if job is None:
        return None
    delivery_id = enqueue_delivery(session, job, f"job.{outcome.status.value}")
    return Change(job.id, job.attempt, job.model, job.status, job.status_data(), delivery_id)
