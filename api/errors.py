"""Every error answer is made here: RFC 9457 problem details with OpenAI's `error` member beside them."""

from collections.abc import Iterable
from typing import NoReturn

import structlog
from flask import Flask, Response, g, json, request
from gunicorn.http.errors import NoMoreData, ParseException
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from api.schemas.content import PART_TYPES
from api.schemas.problem import document
from api.schemas.strict import model_at
from vlmq.errors import ErrorCode, VlmqError
from vlmq.events import REDIS_ERRORS

log = structlog.get_logger(__name__)

RETRY_AFTER_S = 2
MAX_ERRORS = 20
MAX_NAME_CHARS = 64

_CODES = {
    404: ErrorCode.NOT_FOUND,
    405: ErrorCode.METHOD_NOT_ALLOWED,
    413: ErrorCode.BODY_TOO_LARGE,
    415: ErrorCode.UNSUPPORTED_MEDIA_TYPE,
}
_MESSAGES = {
    404: "There is nothing at this path; /openapi.json lists what there is.",
    405: "This path does not take this method; the Allow header lists those it takes.",
    413: "The body is larger than this path takes.",
    415: "This path does not take a body of this content type.",
}


class InvalidRequestError(Exception):
    """A request with one or more errors; the first decides the status."""

    def __init__(self, errors: Iterable[VlmqError]) -> None:
        self.errors = list(errors)[:MAX_ERRORS]
        super().__init__(self.errors[0].message)


def refuse_invalid(error: ValidationError) -> NoReturn:
    """flask-openapi's callback for requests that its models refuse.

    Raises:
        InvalidRequestError: always.
    """
    found = error.errors(include_url=False, include_input=False)[:MAX_ERRORS]
    raise InvalidRequestError(_validation_error(error.title, item) for item in found)


def dotted(location: Iterable[object]) -> str | None:
    """pydantic's location as a field of the request: `messages.0.content.1.url`."""
    # Names in angle brackets are ours and tell the members of a union apart; `[key]` marks a mapping's key.
    names = [str(name)[:MAX_NAME_CHARS] for name in location]
    names = [name for name in names if not (name.startswith("<") and name.endswith(">")) and name != "[key]"]
    if len(names) > 4 and names[0] == "messages" and names[2] == "content":
        del names[4]  # the `type` of the content part
    elif len(names) > 2 and names[0] == "variables" and names[2] in PART_TYPES:
        del names[2]
    return ".".join(names) or None


def problem(errors: list[VlmqError]) -> Response:
    """The answer for these errors, of which the first is the one that counts."""
    first = errors[0]
    body = document(first) | {"instance": request.path, "request_id": g.get("request_id")}
    if len(errors) > 1:
        body["errors"] = [error.as_dict() for error in errors]
    response = Response(json.dumps(body), first.status, content_type="application/problem+json")
    if first.status in (429, 503):
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    if first.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def register_error_handlers(app: Flask) -> None:
    app.register_error_handler(VlmqError, lambda error: problem([error]))
    app.register_error_handler(InvalidRequestError, lambda error: problem(error.errors))
    app.register_error_handler(HTTPException, _http_problem)
    for broken in (ParseException, NoMoreData):
        app.register_error_handler(broken, _malformed)
    for kind in (OperationalError, InterfaceError, PoolTimeoutError, *REDIS_ERRORS):
        app.register_error_handler(kind, _unavailable)
    app.register_error_handler(Exception, _unexpected)


def _validation_error(title: str, item: ErrorDetails) -> VlmqError:
    context, location = item.get("ctx") or {}, item["loc"]
    if "field" in context:
        location = (*location, str(context["field"]))
    param = dotted(location)
    code, text = ErrorCode.INVALID_REQUEST, item["msg"].rstrip(".")
    match item["type"]:
        case "missing":
            text = "This field is required"
        case "model_type" | "model_attributes_type" | "dict_type":
            text = "Takes an object"
        case "union_tag_invalid" | "union_tag_not_found":
            param = ".".join(filter(None, (param, "type")))
            text = f"Takes one of {', '.join(PART_TYPES)}"
        case "extra_forbidden":
            code, text = _unknown_field(title, location)
    return VlmqError(code, f"{param}: {text}." if param else f"{text}.", param=param)


def _unknown_field(title: str, location: tuple[int | str, ...]) -> tuple[ErrorCode, str]:
    *place, name = location
    model = model_at(title, place)
    if model is None:
        return ErrorCode.UNKNOWN_FIELD, "Unknown field"
    if name in model.not_yet:
        return ErrorCode.UNSUPPORTED_PARAMETER, f"Not supported yet; {model.not_yet[str(name)]}"
    if name in model.refused:
        return ErrorCode.UNSUPPORTED_PARAMETER, f"Not supported: {model.refused[str(name)]}"
    known = [field.alias or name for name, field in model.model_fields.items()]
    return ErrorCode.UNKNOWN_FIELD, f"Unknown field; known here: {', '.join(known) or 'none'}"


def _http_problem(error: HTTPException) -> BaseResponse:
    status = error.code or 500
    if error.response is not None or status < 400:
        return error.get_response()
    code = _CODES.get(status, ErrorCode.INVALID_REQUEST if status < 500 else ErrorCode.INTERNAL_ERROR)
    message = _MESSAGES.get(status, f"{error.name}.")
    response = problem([VlmqError(code, message, status=status)])
    for name, value in error.get_headers():
        if name.lower() == "allow":
            response.headers[name] = value
    return response


def _malformed(_error: Exception) -> Response:
    """A body whose chunks cannot be told apart, or that ends too early; the server closes the connection."""
    message = "The body is cut off, or its chunked transfer coding is malformed."
    return problem([VlmqError(ErrorCode.INVALID_REQUEST, message, status=400)])


def _unavailable(error: Exception) -> Response:
    log.warning("a backend is away", error=str(error))
    message = "The database or Redis cannot be reached right now; try again in a moment."
    return problem([VlmqError(ErrorCode.UNAVAILABLE, message)])


def _unexpected(error: Exception) -> Response:
    log.error("a request met an unexpected error", path=request.path, exc_info=error)
    message = "Something went wrong on our side; the request id finds it in the service's log."
    return problem([VlmqError(ErrorCode.INTERNAL_ERROR, message)])
