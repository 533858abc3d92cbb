"""Every error that a user can meet, in one table: its name, its HTTP status, and whether a retry helps."""

from dataclasses import dataclass
from enum import StrEnum


class ErrorCode(StrEnum):
    """The stable, machine-readable name of an error (`error.code` in answers)."""

    # the request could not be read
    INVALID_JSON = "invalid_json"
    INVALID_REQUEST = "invalid_request"
    UNKNOWN_FIELD = "unknown_field"
    INVALID_CURSOR = "invalid_cursor"
    BODY_TOO_LARGE = "body_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    # who and what
    INVALID_API_KEY = "invalid_api_key"
    NOT_FOUND = "not_found"
    FILE_NOT_FOUND = "file_not_found"
    MODEL_NOT_FOUND = "model_not_found"
    CONFLICT = "conflict"
    IDEMPOTENCY_MISMATCH = "idempotency_mismatch"
    QUEUE_FULL = "queue_full"
    # media
    URL_BLOCKED = "url_blocked"
    REDIRECT_REFUSED = "redirect_refused"
    MEDIA_FETCH_FAILED = "media_fetch_failed"
    MEDIA_TIMEOUT = "media_timeout"
    MEDIA_TOO_LARGE = "media_too_large"
    IMAGE_INVALID = "image_invalid"
    IMAGE_TOO_LARGE = "image_too_large"
    VIDEO_INVALID = "video_invalid"
    VIDEO_TOO_LARGE = "video_too_large"
    # prompt and generation
    TEMPLATE_ERROR = "template_error"
    TEMPLATE_FORBIDDEN = "template_forbidden"
    TEMPLATE_LIMIT = "template_limit"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    UNSUPPORTED_MODALITY = "unsupported_modality"
    UNSUPPORTED_PARAMETER = "unsupported_parameter"
    OUT_OF_MEMORY = "out_of_memory"
    ENGINE_ERROR = "engine_error"
    MODEL_LOAD_FAILED = "model_load_failed"
    # how a job can end early
    START_DEADLINE_EXCEEDED = "start_deadline_exceeded"
    RUN_DEADLINE_EXCEEDED = "run_deadline_exceeded"
    WORKER_LOST = "worker_lost"
    # ours
    INTERNAL_ERROR = "internal_error"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Consequence:
    """What follows from an error: the HTTP status at the door, a short title, and whether a job tries again."""

    status: int
    title: str
    retryable: bool = False


CONSEQUENCES: dict[ErrorCode, Consequence] = {
    ErrorCode.INVALID_JSON: Consequence(400, "The body is not valid JSON"),
    ErrorCode.INVALID_REQUEST: Consequence(422, "The request is not valid"),
    ErrorCode.UNKNOWN_FIELD: Consequence(422, "The request has an unknown field"),
    ErrorCode.INVALID_CURSOR: Consequence(400, "The position in the list or stream is not valid"),
    ErrorCode.BODY_TOO_LARGE: Consequence(413, "The body is too large"),
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: Consequence(415, "The content type is not supported"),
    ErrorCode.METHOD_NOT_ALLOWED: Consequence(405, "The method is not allowed here"),
    ErrorCode.INVALID_API_KEY: Consequence(401, "The API key is missing or wrong"),
    ErrorCode.NOT_FOUND: Consequence(404, "There is no such thing"),
    ErrorCode.FILE_NOT_FOUND: Consequence(404, "There is no such file"),
    ErrorCode.MODEL_NOT_FOUND: Consequence(422, "This model is not served"),
    ErrorCode.CONFLICT: Consequence(409, "The state does not allow this"),
    ErrorCode.IDEMPOTENCY_MISMATCH: Consequence(422, "The idempotency key was used with another body"),
    ErrorCode.QUEUE_FULL: Consequence(429, "Too many jobs are waiting"),
    ErrorCode.URL_BLOCKED: Consequence(422, "The URL is not allowed"),
    ErrorCode.REDIRECT_REFUSED: Consequence(422, "The URL redirects to a place that is not allowed"),
    ErrorCode.MEDIA_FETCH_FAILED: Consequence(422, "The media could not be fetched", retryable=True),
    ErrorCode.MEDIA_TIMEOUT: Consequence(422, "Fetching or decoding the media took too long"),
    ErrorCode.MEDIA_TOO_LARGE: Consequence(413, "The media is too large"),
    ErrorCode.IMAGE_INVALID: Consequence(422, "The image could not be decoded"),
    ErrorCode.IMAGE_TOO_LARGE: Consequence(422, "The image has too many pixels"),
    ErrorCode.VIDEO_INVALID: Consequence(422, "The video could not be decoded"),
    ErrorCode.VIDEO_TOO_LARGE: Consequence(422, "The video has too many pixels or frames"),
    ErrorCode.TEMPLATE_ERROR: Consequence(422, "The chat template could not be rendered"),
    ErrorCode.TEMPLATE_FORBIDDEN: Consequence(422, "The template does what templates may not do"),
    ErrorCode.TEMPLATE_LIMIT: Consequence(422, "The template takes too much time or memory, or writes too much"),
    ErrorCode.CONTEXT_LENGTH_EXCEEDED: Consequence(422, "The prompt does not fit into the model's context"),
    ErrorCode.UNSUPPORTED_MODALITY: Consequence(422, "The model does not take this kind of input"),
    ErrorCode.UNSUPPORTED_PARAMETER: Consequence(422, "The engine cannot honour this parameter"),
    ErrorCode.OUT_OF_MEMORY: Consequence(500, "The accelerator ran out of memory", retryable=True),
    ErrorCode.ENGINE_ERROR: Consequence(500, "The engine failed", retryable=True),
    ErrorCode.MODEL_LOAD_FAILED: Consequence(500, "The model could not be loaded"),
    ErrorCode.START_DEADLINE_EXCEEDED: Consequence(422, "The job did not start before its deadline"),
    ErrorCode.RUN_DEADLINE_EXCEEDED: Consequence(422, "The job did not finish before its deadline"),
    ErrorCode.WORKER_LOST: Consequence(500, "The worker died while running the job", retryable=True),
    ErrorCode.INTERNAL_ERROR: Consequence(500, "Something went wrong on our side", retryable=True),
    ErrorCode.UNAVAILABLE: Consequence(503, "The service is not available right now", retryable=True),
}


class ExplainedError(Exception):
    """An error that its message explains to whoever runs a command; it is shown without a traceback."""


class VlmqError(Exception):
    """An error with a code, a message for the user and its consequence.

    `param` names the request's field at fault in dotted form (`messages.0.content.1.url`). `retryable` and `status`
    default to what the code says. The message must never hold a path of the server, a resolved address or a repr.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        param: str | None = None,
        status: int | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        consequence = CONSEQUENCES[code]
        self.code = code
        self.message = message
        self.param = param
        self.status = consequence.status if status is None else status
        self.retryable = consequence.retryable if retryable is None else retryable

    def as_dict(self) -> dict[str, str | None]:
        """The `error` member of answers and job rows: OpenAI's `message`, `type`, `code`, `param`."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"message": self.message, "type": kind, "code": self.code.value, "param": self.param}
