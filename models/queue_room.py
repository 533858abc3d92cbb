"""How many jobs of one tenant may wait to be run."""

from sqlalchemy import bindparam, func, literal_column, select
from sqlalchemy.orm import Session

from models.job import Job, JobStatus

# The empty string keeps databases from going through all that the tenant ever submitted: few jobs are queued, and
# those have an index of their own, which a prepared plan takes only when it sees the index's condition.
_QUEUED = (
    select(Job.id)
    .where(Job.status == literal_column(f"'{JobStatus.QUEUED}'"), (Job.tenant + "") == bindparam("tenant"))
    .limit(bindparam("limit"))
    .subquery()
)
# Built once: every submission waits for it.
_COUNT = select(func.count()).select_from(_QUEUED)


def is_full(session: Session, tenant: str, max_queued: int) -> bool:
    """Whether so many of the tenant's jobs are queued; on PostgreSQL submissions at the same moment may exceed it."""
    return (session.scalar(_COUNT, {"tenant": tenant, "limit": max_queued}) or 0) >= max_queued
