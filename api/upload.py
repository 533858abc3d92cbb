"""The bytes of an upload as they arrive, from a multipart form or a raw body; never whole in memory."""

import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from vlmq.errors import ErrorCode, VlmqError
from vlmq.sniff import HEAD_BYTES

CHUNK_BYTES = 64 * 1024
MAX_NAME_CHARS = 255
# What the form's parser may hold back while it looks for the boundary.
MAX_FORM_BUFFER_BYTES = 4 * CHUNK_BYTES


@dataclass
class Upload:
    """A file on its way in: its cleaned name, its first bytes, and all of its bytes once."""

    filename: str | None
    head: bytes
    chunks: Iterator[bytes]


def read_upload(request: Request) -> Upload:
    """Begin to read the upload of this request.

    Raises:
        VlmqError: it is no upload, or a form with other than one field `file`.
    """
    if request.mimetype == "multipart/form-data":
        filename, chunks = _form_file(request)
    elif request.mimetype == "application/x-www-form-urlencoded" or not request.mimetype:
        message = "Send the file as the field `file` of multipart/form-data, or as the body with its Content-Type."
        raise VlmqError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message)
    else:
        filename, chunks = None, body_chunks(request)
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= HEAD_BYTES:
            break
    if not head:
        raise VlmqError(ErrorCode.INVALID_REQUEST, "The file is empty.", param="file")
    return Upload(clean_name(filename), head[:HEAD_BYTES], _all(head, chunks))


def clean_name(name: str | None) -> str | None:
    """A file name for showing: no folders, no control characters, not long; never used as a path."""
    if name is None:
        return None
    last = PureWindowsPath(PurePosixPath(name).name).name
    kept = "".join(mark for mark in last if unicodedata.category(mark)[0] != "C").strip().strip(".")
    return kept[:MAX_NAME_CHARS] or None


def _all(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from rest


def body_chunks(request: Request) -> Iterator[bytes]:
    """The body as it arrives."""
    while chunk := request.stream.read(CHUNK_BYTES):
        yield chunk
        # A client that is faster than the disk would otherwise keep the server's loop to itself.
        time.sleep(0)


def _form_file(request: Request) -> tuple[str | None, Iterator[bytes]]:
    events = form_events(request.mimetype_params.get("boundary", ""), body_chunks(request))
    for event in events:
        if isinstance(event, File | Field):
            name = str(event.name)[:64]
            if name != "file":
                message = f"Unknown field `{name}`; the form takes one field, `file`."
                raise VlmqError(ErrorCode.UNKNOWN_FIELD, message, param=name)
            if isinstance(event, Field):
                message = "The field `file` has no file name; send it as a file."
                raise VlmqError(ErrorCode.INVALID_REQUEST, message, param="file")
            return event.filename, _file_data(events)
    raise VlmqError(ErrorCode.INVALID_REQUEST, "The form has no field `file`.", param="file")


def _file_data(events: Iterator[Field | File | Data]) -> Iterator[bytes]:
    for event in events:
        if not isinstance(event, Data):
            raise VlmqError(ErrorCode.INVALID_REQUEST, "The form takes one field, `file`.", param="file")
        if event.data:
            yield bytes(event.data)


def form_events(boundary: str, body: Iterator[bytes]) -> Iterator[Field | File | Data]:
    """The fields and files of a multipart form, each followed by its data.

    Raises:
        VlmqError: INVALID_REQUEST for what is no such form.
    """
    marker = boundary.encode("ascii", "ignore")
    if not marker:
        raise VlmqError(ErrorCode.INVALID_REQUEST, "The multipart form names no boundary.")
    decoder = MultipartDecoder(marker, max_form_memory_size=MAX_FORM_BUFFER_BYTES)
    try:
        while True:
            match decoder.next_event():
                case Epilogue():
                    return
                case Field() | File() | Data() as event:
                    yield event
                case NeedData():
                    decoder.receive_data(next(body, None))
                case _:
                    pass
    except RequestEntityTooLarge:
        raise
    except ValueError:
        raise VlmqError(ErrorCode.INVALID_REQUEST, "The multipart form is cut off or malformed.") from None
