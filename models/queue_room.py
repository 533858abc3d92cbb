"""How many jobs of one tenant may wait to be run."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models.job import Job, JobStatus


def is_full(session: Session, tenant: str, max_queued: int) -> bool:
    """Whether so many of the tenant's jobs are queued; on PostgreSQL submissions at the same moment may exceed it."""
    # The empty string keeps databases from going through all that the tenant ever submitted: few jobs are queued, and
    # those have an index of their own.
    mine = (Job.tenant + "") == tenant
    queued = select(Job.id).where(Job.status == JobStatus.QUEUED, mine).limit(max_queued).subquery()
    return (session.scalar(select(func.count()).select_from(queued)) or 0) >= max_queued
