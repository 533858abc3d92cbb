"""A job and its files in one multipart request: the field `job`, and files that its parts name."""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from werkzeug.sansio.multipart import Data, Field, File

from api.upload import CHUNK_BYTES, form_events
from vlmq.errors import ErrorCode, VlmqError
from vlmq.files import disk
from vlmq.limits import Limits
from vlmq.sniff import HEAD_BYTES

JOB_FIELD = "job"
MAX_FILES = 1024
MAX_NAME_CHARS = 128
# Headers and boundaries of one part.
PART_OVERHEAD_BYTES = 1024


@dataclass
class FormFile:
    """One file of the form: its first bytes, and where all of them lie in the spool."""

    spool: BinaryIO
    offset: int
    head: bytes = b""
    size: int = 0
    sha256: str = ""

    def chunks(self) -> Iterator[bytes]:
        """All of its bytes; may be asked for again."""
        at, end = self.offset, self.offset + self.size
        while at < end:
            self.spool.seek(at)
            chunk = self.spool.read(min(CHUNK_BYTES, end - at))
            at += len(chunk)
            yield chunk


@dataclass
class JobForm:
    """The bytes of the field `job`, and the files by their names in the form."""

    job: bytes
    files: dict[str, FormFile] = field(default_factory=dict)

    def fingerprint(self) -> bytes:
        """What two sendings of the same form share, whatever their boundaries."""
        hashes = {name: file.sha256 for name, file in self.files.items()}
        return self.job + b"\0" + json.dumps(hashes, sort_keys=True).encode()


def max_form_bytes(limits: Limits) -> int:
    """What a form may hold in all: the job, and files up to the limit of one upload."""
    return limits.max_body_bytes + limits.max_upload_bytes + MAX_FILES * PART_OVERHEAD_BYTES


def read_job_form(boundary: str, body: Iterator[bytes], limits: Limits, folder: Path) -> JobForm:
    """Read the form; its files go to a file in `folder` that has no name, and are gone when nobody holds the form.

    Raises:
        VlmqError: it is malformed, lacks `job`, names something twice, or is too large; UNAVAILABLE when the disk
            takes none.
    """
    with disk():
        folder.mkdir(parents=True, exist_ok=True)
        # Unbuffered, so that what the disk refuses is known at once; it lives as long as the form.
        spool = cast(BinaryIO, tempfile.TemporaryFile(dir=folder, buffering=0))  # noqa: SIM115
    job: bytearray | None = None
    files: dict[str, FormFile] = {}
    digest = hashlib.sha256()
    at: FormFile | None = None
    for event in form_events(boundary, body):
        if isinstance(event, Field | File):
            name = str(event.name or "")
            if name == JOB_FIELD and job is None:
                job, at = bytearray(), None
                continue
            _check_name(name, files, is_file=isinstance(event, File))
            at = files[name] = FormFile(spool, spool.tell())
            digest = hashlib.sha256()
        elif isinstance(event, Data) and at is not None:
            with disk():
                _write(spool, event.data)
            digest.update(event.data)
            at.head += event.data[: HEAD_BYTES - len(at.head)]
            at.size += len(event.data)
            at.sha256 = digest.hexdigest()
        elif isinstance(event, Data) and job is not None:
            job += event.data
            if len(job) > limits.max_body_bytes:
                message = f"The field `job` has more than the {limits.max_body_bytes} bytes allowed."
                raise VlmqError(ErrorCode.BODY_TOO_LARGE, message, param=JOB_FIELD)
    if job is None:
        message = "The form has no field `job`, which holds the job as JSON."
        raise VlmqError(ErrorCode.INVALID_REQUEST, message, param=JOB_FIELD)
    return JobForm(bytes(job), files)


def _write(spool: BinaryIO, data: bytes) -> None:
    """All of it: without a buffer, a write may take less."""
    left = memoryview(data)
    while left:
        left = left[spool.write(left) :]


def _check_name(name: str, files: dict[str, FormFile], *, is_file: bool) -> None:
    shown = name[:MAX_NAME_CHARS]
    problem = None
    if name == JOB_FIELD or name in files:
        problem = f"The form has the field `{shown}` twice."
    elif not name or len(name) > MAX_NAME_CHARS:
        problem = f"Files of the form need names of 1 to {MAX_NAME_CHARS} characters."
    elif len(files) >= MAX_FILES:
        problem = f"The form has more than {MAX_FILES} files."
    elif not is_file:
        message = f"Unknown field `{shown}`; the form takes `job` and files, each with a file name."
        raise VlmqError(ErrorCode.UNKNOWN_FIELD, message, param=shown)
    if problem is not None:
        raise VlmqError(ErrorCode.INVALID_REQUEST, problem, param=shown or None)
