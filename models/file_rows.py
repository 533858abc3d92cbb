"""Rows of the files table, and the bytes that they stand for."""

from collections.abc import Collection

from sqlalchemy import delete, exists, func, select
from sqlalchemy.orm import Session

from models.db import utc_now
from models.file import File
from models.job import JobFile
from vlmq.errors import ErrorCode, VlmqError
from vlmq.files import FileStore
from vlmq.ids import new_file_id


def lock_contents(session: Session, hashes: Collection[str]) -> None:
    """Keep others from adding or removing rows with these contents until the transaction ends.

    So bytes are never deleted while a row for them is on its way. SQLite has one writer at a time anyway.
    """
    if session.get_bind().dialect.name == "postgresql":
        for sha256 in sorted(set(hashes)):
            session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(sha256, 0))))


def keep_row(
    session: Session,
    files: FileStore,
    *,
    tenant: str,
    sha256: str,
    size: int,
    media_type: str,
    inline: bool,
    filename: str | None = None,
) -> tuple[File, bool]:
    """The tenant's file with these contents, which are locked and stored, and whether it is new.

    An inline file that is uploaded becomes one of the tenant's own.

    Raises:
        VlmqError: UNAVAILABLE when the bytes were deleted since they were stored.
    """
    if not files.path(sha256).exists():
        raise VlmqError(ErrorCode.UNAVAILABLE, "The same file was being deleted; try again.")
    file = session.scalar(select(File).where(File.tenant == tenant, File.sha256 == sha256))
    if file is not None:
        if file.inline and not inline:
            file.inline, file.filename = False, filename
        return file, False
    file = File(
        id=new_file_id(),
        tenant=tenant,
        sha256=sha256,
        size=size,
        media_type=media_type,
        filename=filename,
        inline=inline,
        created_at=utc_now(),
    )
    session.add(file)
    session.flush()
    return file, True


def delete_unused_inline(session: Session, files: FileStore, file_ids: Collection[str]) -> None:
    """Delete those of these files that came inside jobs of which none is left."""
    unused = session.scalars(
        select(File).where(
            File.id.in_(file_ids), File.inline, ~exists().where(JobFile.file_id == File.id).correlate(File)
        )
    ).all()
    delete_rows(session, files, unused)


def delete_rows(session: Session, files: FileStore, rows: Collection[File]) -> None:
    """Delete file rows that no job refers to, and bytes that no other tenant has."""
    hashes = sorted({row.sha256 for row in rows})
    lock_contents(session, hashes)
    session.execute(delete(File).where(File.id.in_([row.id for row in rows])))
    kept = set(session.scalars(select(File.sha256).where(File.sha256.in_(hashes))))
    for sha256 in hashes:
        if sha256 not in kept:
            files.delete(sha256)
