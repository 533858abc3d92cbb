"""How an error is written."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vlmq.errors import CONSEQUENCES, ErrorCode, VlmqError

# One error for each documented status, in the words that it comes with.
_EXAMPLES = (
    VlmqError(ErrorCode.INVALID_JSON, "The body is not JSON: Expecting value (line 1, column 10)."),
    VlmqError(ErrorCode.INVALID_API_KEY, "This API key is not known."),
    VlmqError(ErrorCode.NOT_FOUND, "There is no job with this id."),
    VlmqError(ErrorCode.CONFLICT, "The job is in_progress; cancel it first and delete it when it is over."),
    VlmqError(ErrorCode.BODY_TOO_LARGE, "The body is larger than this path takes."),
    VlmqError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, "The body must be JSON, sent with Content-Type: application/json."),
    VlmqError(
        ErrorCode.INVALID_REQUEST,
        "generation.temperature: Input should be less than or equal to 2.",
        param="generation.temperature",
    ),
    VlmqError(
        ErrorCode.QUEUE_FULL,
        "10000 of your jobs are waiting to be run, and no more may; try again when some have started.",
    ),
    VlmqError(
        ErrorCode.INTERNAL_ERROR, "Something went wrong on our side; the request id finds it in the service's log."
    ),
    VlmqError(ErrorCode.UNAVAILABLE, "The database or Redis cannot be reached right now; try again in a moment."),
)


class ErrorBody(BaseModel):
    """The error as OpenAI's clients read it."""

    message: str
    type: Literal["invalid_request_error", "server_error"]
    code: str
    param: str | None = Field(description="the field at fault, dotted")


class Problem(BaseModel):
    """RFC 9457 problem details."""

    model_config = ConfigDict(json_schema_extra=lambda schema: schema.update(examples=[example(422)]))

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str | None
    error: ErrorBody
    errors: list[ErrorBody] | None = Field(None, description="all of them, when there are several")


def example(status: int) -> dict[str, Any]:
    """A problem with this status, as the documentation shows it."""
    error = next(error for error in _EXAMPLES if error.status == status)
    return document(error) | {"instance": "/v1/jobs", "request_id": "7d1f6a1e9f2b4c0e8a55f0c1d2e3f4a5"}


def document(error: VlmqError) -> dict[str, Any]:
    """What an answer says about the error, whatever the request."""
    return {
        "type": f"urn:vlmq:error:{error.code}",
        "title": CONSEQUENCES[error.code].title,
        "status": error.status,
        "detail": error.message,
        "error": error.as_dict(),
    }
