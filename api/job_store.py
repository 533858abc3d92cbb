"""Jobs into the database and out of it again: each function one transaction."""

from datetime import timedelta

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api.errors import InvalidRequestError
from api.idempotency import Once, remember, replay
from api.intake import Draft
from api.services import Services
from models.db import utc_now
from models.file import File
from models.file_rows import delete_unused_inline, keep_row, lock_contents
from models.job import Job, JobFile
from models.queue_room import is_full
from vlmq.errors import ErrorCode, VlmqError
from vlmq.files import FileStore, StoredBytes
from vlmq.ids import new_job_id
from vlmq.sniff import ANIMATED_TYPES, IMAGE_TYPES, IMAGE_WORDS, VIDEO_TYPES, VIDEO_WORDS, is_still

# A file that comes or goes, or a key that is used, between two statements: the next try sees it.
TRIES = 3

# One statement gives the job as it is stored; adding it to the session would take an INSERT and a SELECT.
_INSERT = insert(Job).returning(Job)

_ACCEPTED = {"image": (IMAGE_TYPES, IMAGE_WORDS), "video": (VIDEO_TYPES, VIDEO_WORDS)}


def find_job(session: Session, tenant: str, job_id: str, *, lock: bool = False) -> Job:
    """Raises VlmqError NOT_FOUND, also for another tenant's job. With `lock`, nobody else changes or deletes it."""
    # The tenant is asked for, not compared: reading or locking another's row would take a time that tells of it.
    rows = select(Job).where(Job.id == job_id, Job.tenant == tenant)
    job = session.scalar(rows.with_for_update() if lock else rows) if "\x00" not in job_id else None
    if job is None:
        raise VlmqError(ErrorCode.NOT_FOUND, "There is no job with this id.")
    return job


def load_job(services: Services, tenant: str, job_id: str) -> Job:
    with services.database.read() as session:
        return find_job(session, tenant, job_id)


def store(services: Services, tenant: str, draft: Draft, once: Once | None, *, tries: int = TRIES) -> tuple[Job, bool]:
    """Keep the inline bytes, then insert the job, its files and its key together. Says whether the key made it before.

    Raises:
        VlmqError: what `replay` raises, FILE_NOT_FOUND, or QUEUE_FULL.
    """
    if draft.inline:
        # Looked at before, so that what is refused leaves no bytes.
        with services.database.read() as session:
            _check_room(session, services, tenant)
    # Each was held to the limit of its kind when it was read.
    limit = services.settings.limits.max_upload_bytes
    kept = [services.files.put(use.file.chunks(), limit=limit, param=use.param) for use in draft.inline]
    try:
        with services.database.write() as session:
            return _insert(session, services, tenant, draft, kept=kept, once=once), False
    except IntegrityError:
        if (job := replay(services, tenant, once, Job)) is not None:
            return job, True
        if tries == 1:
            raise
    return store(services, tenant, draft, once, tries=tries - 1)


def delete_job(services: Services, tenant: str, job_id: str, *, tries: int = TRIES) -> None:
    """Delete a job that is over, with its deliveries and the inline files that no other job uses.

    Raises:
        VlmqError: NOT_FOUND; CONFLICT while it is not over.
    """
    try:
        with services.database.write() as session:
            job = find_job(session, tenant, job_id, lock=True)
            if not job.status.is_final:
                message = f"The job is {job.status}; cancel it first and delete it when it is over."
                raise VlmqError(ErrorCode.CONFLICT, message)
            file_ids = session.scalars(select(JobFile.file_id).where(JobFile.job_id == job.id)).all()
            session.execute(delete(JobFile).where(JobFile.job_id == job.id))
            session.execute(delete(Job).where(Job.id == job.id))
            delete_unused_inline(session, services.files, file_ids)
    except IntegrityError:
        if tries == 1:
            raise
        delete_job(services, tenant, job_id, tries=tries - 1)


def _insert(
    session: Session, services: Services, tenant: str, draft: Draft, *, kept: list[StoredBytes], once: Once | None
) -> Job:
    body, limits, now = draft.body, services.settings.limits, utc_now()
    _check_room(session, services, tenant)
    file_ids = _check_files(session, services.files, tenant, draft)
    lock_contents(session, [stored.sha256 for stored in kept])
    for use, stored in zip(draft.inline, kept, strict=True):
        file, _ = keep_row(
            session,
            services.files,
            tenant=tenant,
            sha256=stored.sha256,
            size=stored.size,
            media_type=use.file.media_type,
            inline=True,
        )
        use.part["file_id"] = file.id
        file_ids.add(file.id)
    values = dict(  # noqa: C408 - the names of columns, as a constructor takes them
        id=new_job_id(),
        tenant=tenant,
        model=body.model,
        kind=draft.kind,
        request=draft.request,
        user_metadata=body.metadata,
        webhook=None if body.webhook is None else body.webhook.model_dump(),
        priority=body.priority,
        created_at=now,
        start_deadline_at=now + timedelta(seconds=body.deadlines.start_s or limits.start_s),
        run_s=body.deadlines.run_s or limits.run_s,
    )
    job = session.scalars(_INSERT, values).one()
    session.add_all(JobFile(job_id=job.id, file_id=file_id) for file_id in file_ids)
    remember(session, tenant, once, job)
    session.flush()
    return job


def _check_room(session: Session, services: Services, tenant: str) -> None:
    max_queued = services.settings.limits.max_queued
    if max_queued is not None and is_full(session, tenant, max_queued):
        message = f"{max_queued} of your jobs are waiting to be run, and no more may; try again when some have started."
        raise VlmqError(ErrorCode.QUEUE_FULL, message)


def _check_files(session: Session, files: FileStore, tenant: str, draft: Draft) -> set[str]:
    ids = {use.part["file_id"] for use in draft.files}
    if not ids:
        return set()
    rows = session.execute(select(File.id, File.media_type, File.sha256).where(File.id.in_(ids), File.tenant == tenant))
    found: dict[str, tuple[str, str]] = {id_: (media_type, sha256) for id_, media_type, sha256 in rows}
    errors = []
    for use in draft.files:
        media_type, sha256 = found.get(use.part["file_id"], (None, ""))
        allowed, words = _ACCEPTED[use.kind]
        if media_type is None:
            message = "There is no file with this id; upload it with POST /v1/files."
            errors.append(VlmqError(ErrorCode.FILE_NOT_FOUND, message, param=use.param, status=422))
        elif media_type not in allowed:
            message = f"The file is {media_type}, not {_noun(use.kind)}; {words} would be."
            errors.append(VlmqError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message, param=use.param, status=422))
        elif use.kind == "video" and media_type in ANIMATED_TYPES and is_still(files.head(sha256)):
            message = f"The file is {media_type}, a still image; a video would be {words}."
            errors.append(VlmqError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message, param=use.param, status=422))
    if errors:
        raise InvalidRequestError(errors)
    return ids


def _noun(kind: str) -> str:
    return "an image" if kind == "image" else "a video"
