"""Taking the next queued job: one statement, prepared once, that claims pass each other by in.

Every worker runs it for every ring, so its place in the queue comes from a partial index on both databases.
"""

from datetime import datetime, timedelta

from sqlalchemy import (
    BindParameter,
    Boolean,
    ColumnElement,
    ScalarSelect,
    and_,
    bindparam,
    func,
    literal_column,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from models.db import UTCDateTime, utc_now
from models.job import Job, JobKind, JobStatus

# Written out, not as parameters: a prepared plan takes a partial index only when it sees the index's condition.
_QUEUED = Job.status == literal_column(f"'{JobStatus.QUEUED}'")
RENDERS = Job.kind == literal_column(f"'{JobKind.RENDER}'")


def too_late(now: datetime | BindParameter[datetime]) -> ColumnElement[bool]:
    """Whether a queued job's start deadline has passed."""
    # A job that was started and came back to the queue has kept its start deadline.
    return and_(Job.attempt == 0, Job.start_deadline_at <= now)


def _claimable(now: datetime | BindParameter[datetime]) -> tuple[ColumnElement[bool], ...]:
    # A new job has no `available_at`: a claim whose `now` is a moment old must still find it.
    return (
        _QUEUED,
        or_(Job.available_at.is_(None), Job.available_at <= now),
        not_(too_late(now)),
    )


def _next_claimable(*kinds: ColumnElement[bool]) -> ScalarSelect[str]:
    # On PostgreSQL claims pass each other by; SQLite has one writer at a time and ignores the clause.
    return (
        select(Job.id)
        .where(Job.model == bindparam("wanted_model"), *_claimable(bindparam("now", type_=UTCDateTime())), *kinds)
        .order_by(Job.priority.desc(), Job.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )


def _claim(*kinds: ColumnElement[bool]) -> ReturningUpdate[Job]:
    return (
        update(Job)
        .where(Job.id == _next_claimable(*kinds), or_(Job.crashes == 0, bindparam("alone", type_=Boolean())))
        .values(
            status=JobStatus.IN_PROGRESS,
            attempt=Job.attempt + 1,
            worker_id=bindparam("worker"),
            lease_expires_at=bindparam("lease_until"),
            started_at=bindparam("now", type_=UTCDateTime()),
            error=None,
        )
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )


# Built once: with every job's first token waiting for it, building it takes as long as running it.
_CLAIM = _claim()
_CLAIM_RENDER = _claim(RENDERS)
_NEXT_RUNS_ALONE = select(Job.crashes > 0).where(Job.id == _next_claimable())


def claim_next(
    session: Session, *, model: str, worker_id: str, lease_s: float, alone: bool = True, renders_only: bool = False
) -> Job | None:
    """Take the queued job of this model that is next: highest priority first, then the oldest.

    `alone` says that the worker holds no other job; only then it gets one that has killed a worker.
    """
    now = utc_now()
    values = {
        "wanted_model": model,
        "worker": worker_id,
        "now": now,
        "lease_until": now + timedelta(seconds=lease_s),
        "alone": alone,
    }
    return session.scalars(_CLAIM_RENDER if renders_only else _CLAIM, values).one_or_none()


def next_runs_alone(session: Session, *, model: str) -> bool:
    """Whether the job that is next has killed a worker: who holds others makes room for it and claims none before."""
    return bool(session.scalar(_NEXT_RUNS_ALONE, {"wanted_model": model, "now": utc_now()}))


def claimable_jobs(session: Session) -> dict[str, int]:
    """How many jobs of each model wait to be claimed now."""
    rows = session.execute(select(Job.model, func.count()).where(*_claimable(utc_now())).group_by(Job.model))
    return {model: count for model, count in rows}  # noqa: C416 (rows are not typed as pairs)


def running_jobs(session: Session, model: str) -> int:
    """How many jobs the workers of a model hold together."""
    held = select(func.count()).where(Job.model == model, Job.status == JobStatus.IN_PROGRESS)
    return session.scalar(held) or 0
