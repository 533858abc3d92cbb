"""The body of `POST /v1/jobs`."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from api.schemas.content import Message
from api.schemas.generation import Generation
from api.schemas.strict import CachedSchema, Strict

WEEK_S = 7 * 24 * 3600

WebhookEvent = Literal[
    "job.completed", "job.failed", "job.cancelled", "job.expired", "job.started", "job.progress", "job.output"
]
FINAL_EVENTS: tuple[WebhookEvent, ...] = ("job.completed", "job.failed", "job.cancelled", "job.expired")


class Webhook(Strict):
    """Where the service calls when something happens to the job; signed as Standard Webhooks say."""

    url: str = Field(description="https")
    events: list[WebhookEvent] = Field(list(FINAL_EVENTS), min_length=1, max_length=16)


class Deadlines(Strict):
    start_s: float | None = Field(None, gt=0, le=WEEK_S, description="expires if it has not started by then")
    run_s: float | None = Field(None, gt=0, le=WEEK_S, description="ends if it has run for this long")


_LATER = "leave it out"

EXAMPLE: dict[str, Any] = {
    "model": "tiny-vlm",
    "messages": [
        {"role": "system", "content": "Answer briefly."},
        {
            "role": "user",
            "content": [
                {"type": "image", "url": "https://example.com/cat.png"},
                {"type": "video", "url": "https://example.com/street.mp4", "num_frames": 16},
                {"type": "text", "text": "What do you see?"},
            ],
        },
    ],
    "generation": {"max_new_tokens": 256, "do_sample": True, "temperature": 0.7, "seed": 7, "stop": ["\n\n"]},
    "webhook": {"url": "https://example.com/hook", "events": ["job.completed", "job.failed"]},
    "priority": 5,
    "deadlines": {"start_s": 600, "run_s": 900},
    "metadata": {"ticket": "A-17"},
}


class JobRequest(Strict):
    """A chat with images and videos for one of the served models."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})
    not_yet: ClassVar[dict[str, str]] = {
        "chat_template": f"the checkpoint's own template is used; {_LATER}",
        "template_kwargs": _LATER,
        "return_full_text": f"the answer is returned without the prompt; {_LATER}",
    }

    model: str = Field(description="one of `GET /v1/models`")
    messages: list[Message] = Field(min_length=1, max_length=4096)
    generation: Generation = Generation()
    allow_degraded: bool = Field(
        True, description="whether fewer frames or pixels may be looked at where all of them do not fit the memory"
    )
    webhook: Webhook | None = None
    priority: int = Field(5, ge=0, le=9, description="9 goes first")
    deadlines: Deadlines = Deadlines()
    metadata: dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)]] = Field(
        default_factory=dict, max_length=16, description="yours; returned as it is"
    )


class IdempotencyHeader(CachedSchema):
    """Headers of a POST that creates."""

    idempotency_key: str | None = Field(
        None,
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="The same key with the same body makes one thing, however often it is sent.",
    )
