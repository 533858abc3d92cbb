"""JSON bodies, read strictly: what two parsers could read differently, or a database cannot keep, is refused."""

import json
import math
from pathlib import Path
from typing import Any

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge

from api.job_form import FormFile, JobForm, max_form_bytes, read_job_form
from api.upload import body_chunks
from vlmq.errors import ErrorCode, VlmqError
from vlmq.limits import Limits

# Endpoints that take their JSON as the field `job` of a form, with files beside it.
TAKE_FORMS = frozenset({"jobs.submit_job"})

# More than any request within the limits holds; what is refused here costs next to nothing.
MAX_VALUES = 50_000
# Each value brings a comma, a bracket or both; it and its name have two quotes each.
MAX_MARKS = 2 * MAX_VALUES
MAX_QUOTES = 4 * MAX_VALUES


class StrictRequest(Request):
    """A Flask request whose JSON goes through `parse_json_object`."""

    limits: Limits
    # Where files of forms lie while they are read.
    spool_dir: Path
    _form: JobForm | None = None

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:  # noqa: ARG002
        if self.mimetype == "multipart/form-data" and self.endpoint in TAKE_FORMS:
            return parse_json_object(self.job_form().job, self.limits)
        if self.mimetype != "application/json" and not self.mimetype.endswith("+json"):
            message = "The body must be JSON, sent with Content-Type: application/json."
            raise VlmqError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message)
        return parse_json_object(self.whole_body(), self.limits)

    def job_form(self) -> JobForm:
        """The multipart form of this request, read once and kept."""
        if self._form is None:
            self.max_content_length = max_form_bytes(self.limits)
            boundary = self.mimetype_params.get("boundary", "")
            self._form = read_job_form(boundary, body_chunks(self), self.limits, self.spool_dir)
        return self._form

    @property
    def uploads(self) -> dict[str, FormFile]:
        """The files that came with the JSON."""
        return {} if self._form is None else self._form.files

    def fingerprint(self) -> bytes:
        """What is the same when a request is sent again."""
        return self.whole_body() if self._form is None else self._form.fingerprint()

    def whole_body(self) -> bytes:
        """The body, read once and kept.

        Raises:
            RequestEntityTooLarge: it is above the limit.
        """
        body = self.get_data()
        # Of a chunked body above the limit, werkzeug returns the beginning as if it were all.
        if self.content_length is None and self.max_content_length is not None and len(body) >= self.max_content_length:
            raise RequestEntityTooLarge
        return body


def parse_json_object(body: bytes, limits: Limits) -> dict[str, Any]:
    """Read one JSON object.

    Raises:
        VlmqError: INVALID_JSON for malformed JSON, duplicate names, NaN and too deep nesting; INVALID_REQUEST when it
            is not an object, holds too many values, or numbers and characters that cannot be stored.
    """
    # Millions of empty lists fit into a body; count before they become objects.
    if _marks(body) > MAX_MARKS and _marks_outside_strings(body) > MAX_MARKS:
        raise _too_many()
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise VlmqError(ErrorCode.INVALID_JSON, "The body is not UTF-8.") from None
    except RecursionError:
        raise _too_deep(limits) from None
    except json.JSONDecodeError as error:
        message = f"The body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})."
        raise VlmqError(ErrorCode.INVALID_JSON, message) from None
    except ValueError:
        raise VlmqError(ErrorCode.INVALID_JSON, "The body holds a number with too many digits.") from None
    if not isinstance(value, dict):
        raise VlmqError(ErrorCode.INVALID_REQUEST, "The body must be a JSON object.")
    _check_values(value, limits)
    return value


def _marks(body: bytes) -> int:
    return sum(body.count(mark) for mark in (b",", b"[", b"{"))


def _marks_outside_strings(body: bytes) -> int:
    """So that a long text with many commas is taken, although as many values are not."""
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if bare.count(b'"') > MAX_QUOTES:
        raise _too_many()
    return sum(map(_marks, bare.split(b'"')[::2]))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise VlmqError(ErrorCode.INVALID_JSON, f'The name "{twice[:64]}" stands twice in one object.')
    return value


def _refuse_constant(name: str) -> Any:
    raise VlmqError(ErrorCode.INVALID_JSON, f"{name} is not JSON.")


def _check_values(root: dict[str, Any], limits: Limits) -> None:
    pending: list[tuple[Any, tuple[str | int, ...]]] = [(root, ())]
    seen = 0
    while pending:
        value, path = pending.pop()
        seen += 1
        if seen > MAX_VALUES:
            raise _too_many()
        if len(path) >= limits.max_json_depth and isinstance(value, dict | list):
            raise _too_deep(limits)
        if isinstance(value, float) and math.isinf(value):
            message = "The number is too large."
            raise VlmqError(ErrorCode.INVALID_REQUEST, message, param=".".join(str(name)[:64] for name in path))
        if isinstance(value, str):
            check_storable(value, ".".join(str(name)[:64] for name in path))
        elif isinstance(value, list):
            pending += [(item, (*path, index)) for index, item in enumerate(value)]
        elif isinstance(value, dict):
            for name, item in value.items():
                check_storable(name, ".".join(str(part)[:64] for part in path) or None)
                pending.append((item, (*path, name)))


def check_storable(text: str, param: str | None) -> None:
    """Refuse what PostgreSQL cannot store.

    Raises:
        VlmqError: INVALID_REQUEST.
    """
    if "\x00" in text:
        raise VlmqError(ErrorCode.INVALID_REQUEST, "Text must not hold the NUL character.", param=param)
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            message = "Text must not hold half a surrogate pair (\\ud800 to \\udfff)."
            raise VlmqError(ErrorCode.INVALID_REQUEST, message, param=param) from None


def _too_deep(limits: Limits) -> VlmqError:
    message = f"The body is nested more than {limits.max_json_depth} levels deep."
    return VlmqError(ErrorCode.INVALID_JSON, message)


def _too_many() -> VlmqError:
    return VlmqError(ErrorCode.INVALID_REQUEST, f"The body holds more than {MAX_VALUES} values.")
