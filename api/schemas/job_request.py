"""The body of `POST /v1/jobs`."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from api.schemas.content import Message
from api.schemas.strict import CachedSchema, Strict

MAX_SEED = 2**63 - 1
WEEK_S = 7 * 24 * 3600
# Below these, scores leave the range of floats and nothing can be drawn from them.
MIN_TEMPERATURE = 0.01
MIN_PENALTY = 0.01

WebhookEvent = Literal[
    "job.completed", "job.failed", "job.cancelled", "job.expired", "job.started", "job.progress", "job.output"
]
FINAL_EVENTS: tuple[WebhookEvent, ...] = ("job.completed", "job.failed", "job.cancelled", "job.expired")

_StopString = Annotated[str, Field(min_length=1, max_length=256)]


def _stop_kind(value: Any) -> str | None:
    return "<one>" if isinstance(value, str) else "<several>" if isinstance(value, list) else None


class Generation(Strict):
    """How the answer is generated; what is left out is as the checkpoint says."""

    max_new_tokens: int | None = Field(None, ge=1)
    min_new_tokens: int | None = Field(None, ge=0)
    do_sample: bool | None = None
    temperature: float | None = Field(
        None, ge=0, le=2, description=f"0 takes the likeliest token each time; otherwise at least {MIN_TEMPERATURE}"
    )
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, le=1_000_000)
    repetition_penalty: float | None = Field(None, ge=MIN_PENALTY, le=10)
    stop: (
        Annotated[
            Annotated[_StopString, Tag("<one>")] | Annotated[list[_StopString], Field(max_length=16), Tag("<several>")],
            Discriminator(
                _stop_kind,
                custom_error_type="text_or_list",
                custom_error_message="Takes text, or a list of texts",
            ),
        ]
        | None
    ) = Field(None, description="generation ends before any of these")
    seed: int | None = Field(None, ge=0, le=MAX_SEED)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.do_sample and self.temperature == 0:
            raise PydanticCustomError("range", "Must be above 0 when do_sample is true", {"field": "temperature"})
        if self.temperature and self.temperature < MIN_TEMPERATURE:
            raise PydanticCustomError(
                "range", "Must be 0, or at least {least}", {"field": "temperature", "least": MIN_TEMPERATURE}
            )
        if (
            self.min_new_tokens is not None
            and self.max_new_tokens is not None
            and self.min_new_tokens > self.max_new_tokens
        ):
            raise PydanticCustomError("range", "Must not be above max_new_tokens", {"field": "min_new_tokens"})
        return self

    def stored(self) -> dict[str, Any]:
        """What the worker reads: only what was named, `stop` always a list."""
        values = self.model_dump(exclude_none=True)
        if isinstance(values.get("stop"), str):
            values["stop"] = [values["stop"]]
        return values


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
