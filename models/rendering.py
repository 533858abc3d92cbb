"""Jobs of the kind `render`: one is deleted by the request that waits for it, or here."""

from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from models.db import utc_now
from models.job import Job, JobFile, JobKind


def delete_forgotten_renders(session: Session, *, older_than_s: float) -> int:
    """Delete prompts that were rendered for a request that is long over; how many there were."""
    made_before = utc_now() - timedelta(seconds=older_than_s)
    forgotten = select(Job.id).where(Job.kind == JobKind.RENDER, Job.created_at < made_before).limit(100)
    ids = session.scalars(forgotten.with_for_update(skip_locked=True)).all()
    if ids:
        session.execute(delete(JobFile).where(JobFile.job_id.in_(ids)))
        session.execute(delete(Job).where(Job.id.in_(ids)))
    return len(ids)
