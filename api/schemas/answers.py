"""What the API answers, for its documentation."""

from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.problem import ErrorBody

Item = TypeVar("Item")

JobStatusName = Literal["queued", "in_progress", "completed", "failed", "cancelled", "expired"]


class Usage(BaseModel):
    """What the job used; also on cancelled and failed jobs."""

    model_config = ConfigDict(extra="allow")

    prompt_tokens: int
    image_tokens: int
    video_tokens: int
    completion_tokens: int
    total_tokens: int
    images: int
    frames: int


class OutputAnswer(BaseModel):
    """One of several texts."""

    text: str
    finish_reason: Literal["stop", "length", "cancelled", "deadline"]
    completion_tokens: int
    logprobs: list[dict[str, Any]] | None = Field(
        None, description="one a token: token, token_id, bytes, logprob, top_logprobs"
    )


class JobAnswer(BaseModel):
    """A job."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "job_0193a5c8d2b77a3e9c55f0c1d2e3f4a5",
                    "object": "job",
                    "model": "tiny-vlm",
                    "status": "completed",
                    "created_at": "2026-11-22T08:00:00.000Z",
                    "started_at": "2026-11-22T08:00:00.120Z",
                    "finished_at": "2026-11-22T08:00:01.450Z",
                    "cancel_requested": False,
                    "attempts": 1,
                    "priority": 5,
                    "output_text": "A red circle.",
                    "finish_reason": "stop",
                    "degraded": None,
                    "outputs": None,
                    "usage": {
                        "prompt_tokens": 80,
                        "image_tokens": 64,
                        "video_tokens": 0,
                        "completion_tokens": 4,
                        "total_tokens": 84,
                        "images": 1,
                        "frames": 0,
                    },
                    "timings": {
                        "queued": 0.12,
                        "media": 0.03,
                        "prompt": 0.01,
                        "engine_wait": 0.05,
                        "first_token": 0.2,
                        "generation": 1.24,
                        "total": 1.45,
                    },
                    "manifest": {
                        "media": [
                            {
                                "param": "messages.0.content.0",
                                "type": "image",
                                "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                                "width": 224,
                                "height": 224,
                            }
                        ],
                        "max_new_tokens": 64,
                        "seed": 7,
                    },
                    "error": None,
                    "webhook": None,
                    "metadata": {"ticket": "A-17"},
                }
            ]
        }
    )

    id: str
    object: Literal["job"]
    model: str
    status: JobStatusName
    created_at: str
    started_at: str | None
    finished_at: str | None
    cancel_requested: bool
    attempts: int
    priority: int
    output_text: str | None = Field(description="while the job runs, what there is of it so far")
    finish_reason: Literal["stop", "length", "cancelled", "deadline"] | None
    degraded: dict[str, Any] | None = Field(
        description="what was left out because the memory did not take it: reason, steps, frames, pixels"
    )
    outputs: list[OutputAnswer] | None = Field(
        None, description="where several texts, or log probabilities, were asked for; not in lists"
    )
    usage: Usage | None
    timings: dict[str, float] | None = Field(description="seconds")
    manifest: dict[str, Any] | None = Field(
        description="what was run: the seed, each file's hash, each video's frames and their times"
    )
    error: ErrorBody | None
    webhook: dict[str, Any] | None
    metadata: dict[str, str]
    request: dict[str, Any] | None = Field(None, description="messages and generation as stored; not in lists")


class FileAnswer(BaseModel):
    """An uploaded file."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "file_0193a5c8d2b77a3e9c55f0c1d2e3f4a5",
                    "object": "file",
                    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                    "bytes": 20480,
                    "media_type": "image/png",
                    "filename": "cat.png",
                    "created_at": "2026-11-22T08:00:00.000Z",
                }
            ]
        }
    )

    id: str
    object: Literal["file"]
    sha256: str
    bytes: int
    media_type: str
    filename: str | None
    created_at: str


class TemplateAnswer(BaseModel):
    """A version of a stored template."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["template"]
    name: str
    version: int
    created_at: str
    kind: Literal["chat", "prompt"]
    description: str | None = None
    chat_template: str | None = Field(None, description="of the kind `chat`")
    messages: list[dict[str, Any]] | None = Field(None, description="of the kind `prompt`")
    variables: dict[str, Any] | None = Field(None, description="of the kind `prompt`")
    generation: dict[str, Any] | None = Field(None, description="of the kind `prompt`")


class DeliveryAttemptAnswer(BaseModel):
    number: int
    started_at: str
    duration_s: float
    status_code: int | None
    error: str | None
    response_excerpt: str | None


class DeliveryAnswer(BaseModel):
    """A webhook message on its way."""

    id: str
    object: Literal["delivery"]
    job_id: str
    event: str
    url: str
    status: Literal["pending", "sending", "delivered", "dead"]
    tries: int
    created_at: str
    due_at: str
    delivered_at: str | None
    payload: dict[str, Any] | None = Field(None, description="not in lists")
    attempts: list[DeliveryAttemptAnswer] | None = Field(None, description="not in lists")


class SecretAnswer(BaseModel):
    """The key that signs this tenant's webhooks."""

    secret: str = Field(examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])


class Deleted(BaseModel):
    id: str
    object: str
    deleted: Literal[True]


class Page(BaseModel, Generic[Item]):
    """A part of a list, newest first; `after=<last_id>` goes on."""

    object: Literal["list"]
    data: list[Item]
    has_more: bool
    first_id: str | None
    last_id: str | None


class JobPage(Page[JobAnswer]):
    """Jobs."""


class FilePage(Page[FileAnswer]):
    """Files."""


class TemplatePage(Page[TemplateAnswer]):
    """Templates."""


class DeliveryPage(Page[DeliveryAnswer]):
    """Deliveries."""
