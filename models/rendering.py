"""Jobs of the kind `render`: one is deleted by the request that waits for it, or here."""

from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from models.claims import RENDERS
from models.db import utc_now
from models.file_rows import delete_unused_inline
from models.job import Job, JobFile
from vlmq.files import FileStore


def delete_forgotten_renders(session: Session, files: FileStore, *, older_than_s: float) -> int:
    """Delete prompts that were rendered for a request that is long over, with their inline media; how many."""
    made_before = utc_now() - timedelta(seconds=older_than_s)
    forgotten = select(Job.id).where(RENDERS, Job.created_at < made_before).limit(100)
    ids = session.scalars(forgotten.with_for_update(skip_locked=True)).all()
    if ids:
        of_theirs = delete(JobFile).where(JobFile.job_id.in_(ids)).returning(JobFile.file_id)
        file_ids = session.scalars(of_theirs).all()
        session.execute(delete(Job).where(Job.id.in_(ids)))
        delete_unused_inline(session, files, file_ids)
    return len(ids)
