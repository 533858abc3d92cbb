"""`/v1/files`: upload once, use in many jobs; the same bytes are the same file."""

from typing import Any

from flask import Response, jsonify, request, send_file, url_for
from flask_openapi.blueprint import APIBlueprint
from pydantic import BaseModel, Field
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api.auth import current_tenant
from api.documentation import BEARER, FILES, problems
from api.inline_media import accepted_type
from api.paging import PageQuery, as_list, page
from api.schemas.answers import Deleted, FileAnswer, FilePage
from api.services import services
from api.upload import read_upload
from models.file import File
from models.file_rows import delete_rows, keep_row, lock_contents
from models.job import Job, JobFile, JobStatus
from models.job_view import timestamp
from vlmq.errors import ErrorCode, VlmqError
from vlmq.limits import Limits
from vlmq.sniff import IMAGE_TYPES, VIDEO_TYPES, is_still, sniff

# The multipart form around a file, beside the file's own limit.
FORM_BYTES = 64 * 1024

blueprint = APIBlueprint("files", __name__, url_prefix="/v1/files", abp_tags=[FILES], abp_security=BEARER)

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_UPLOAD = {
    "description": "One field `file`, or the bytes themselves with their Content-Type.",
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": {"type": "string", "format": "binary"}},
            }
        },
        "application/octet-stream": _BINARY,
        "image/*": _BINARY,
        "video/*": _BINARY,
    },
}


class FilePath(BaseModel):
    file_id: str = Field(description="file_…")


@blueprint.post(
    "",
    summary="Upload an image or a video",
    request_body=_UPLOAD,
    responses={201: FileAnswer, 200: FileAnswer, **problems(413, 415, 422)},
)
def upload_file() -> Response:
    """What the file is is told from its bytes. The same bytes again answer 200 with the file that is there."""
    service, tenant = services(), current_tenant()
    limits = service.settings.limits
    request.max_content_length = limits.max_upload_bytes + FORM_BYTES
    upload = read_upload(request)
    media_type = accepted_type(upload.head)
    stored = service.files.put(upload.chunks, limit=_limit(upload.head, limits), param="file")
    with service.database.write() as session:
        lock_contents(session, [stored.sha256])
        file, new = keep_row(
            session,
            service.files,
            tenant=tenant,
            sha256=stored.sha256,
            size=stored.size,
            media_type=media_type,
            inline=False,
            filename=upload.filename,
        )
    response = jsonify(file_view(file))
    response.status_code = 201 if new else 200
    response.headers["Location"] = url_for("files.get_file", file_id=file.id)
    return response


@blueprint.get("", summary="List files", responses={200: FilePage, **problems(400, 422)})
def list_files(query: PageQuery) -> dict[str, Any]:
    """Uploaded ones, newest first; what came inside a job is not listed."""
    rows = select(File).where(File.tenant == current_tenant(), ~File.inline)
    with services().database.read() as session:
        found, has_more = page(session, rows, File.id, query, "file")
    return as_list([file_view(file) for file in found], has_more=has_more)


@blueprint.get("/<file_id>", summary="Look at a file", responses={200: FileAnswer, **problems(404)})
def get_file(path: FilePath) -> dict[str, Any]:
    """Its size, hash and type."""
    return file_view(_load_file(path.file_id))


@blueprint.get(
    "/<file_id>/content",
    summary="Download a file",
    responses={200: {"description": "The bytes", "content": {"application/octet-stream": _BINARY}}, **problems(404)},
)
def download_file(path: FilePath) -> Response:
    """Always as an attachment, so that no browser runs what somebody uploaded."""
    file = _load_file(path.file_id)
    location = services().files.path(file.sha256)
    if not location.exists():
        raise VlmqError(ErrorCode.FILE_NOT_FOUND, "The content of this file is gone.")
    response = send_file(
        location, mimetype=file.media_type, as_attachment=True, download_name=file.filename or file.id, etag=file.sha256
    )
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Security-Policy"] = "sandbox"
    return response


@blueprint.delete("/<file_id>", summary="Delete a file", responses={200: Deleted, **problems(404, 409)})
def delete_file(path: FilePath) -> dict[str, Any]:
    """Not while a job that is not over uses it."""
    service, tenant = services(), current_tenant()
    in_use = VlmqError(ErrorCode.CONFLICT, "A job that is not over uses this file; cancel it or wait for its end.")
    try:
        with service.database.write() as session:
            # In this order, as jobs that bring or take files do.
            lock_contents(session, [_find_file(session, tenant, path.file_id).sha256])
            file = _find_file(session, tenant, path.file_id, lock=True)
            live = (JobStatus.QUEUED, JobStatus.IN_PROGRESS)
            users = select(Job.id).join(JobFile).where(JobFile.file_id == file.id, Job.status.in_(live)).limit(1)
            if session.scalar(users) is not None:
                raise in_use
            session.execute(delete(JobFile).where(JobFile.file_id == file.id))
            delete_rows(session, service.files, [file])
    except IntegrityError:
        # A job that came in between has it now.
        raise in_use from None
    return {"id": path.file_id, "object": "file", "deleted": True}


def file_view(file: File) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "sha256": file.sha256,
        "bytes": file.size,
        "media_type": file.media_type,
        "filename": file.filename,
        "created_at": timestamp(file.created_at),
    }


def _limit(head: bytes, limits: Limits) -> int:
    """Animations may be as large as videos."""
    only_image = sniff(head) in IMAGE_TYPES - VIDEO_TYPES or is_still(head)
    return min(limits.max_image_bytes if only_image else limits.max_video_bytes, limits.max_upload_bytes)


def _load_file(file_id: str) -> File:
    with services().database.read() as session:
        return _find_file(session, current_tenant(), file_id)


def _find_file(session: Session, tenant: str, file_id: str, *, lock: bool = False) -> File:
    rows = select(File).where(File.id == file_id, File.tenant == tenant)
    # Read anew when it is locked: it may have changed since.
    rows = rows.with_for_update().execution_options(populate_existing=True) if lock else rows
    file = session.scalar(rows) if "\x00" not in file_id else None
    if file is None:
        raise VlmqError(ErrorCode.FILE_NOT_FOUND, "There is no file with this id.")
    return file
