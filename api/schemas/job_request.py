"""The body of `POST /v1/jobs`."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from api.schemas.content import Message
from api.schemas.generation import Generation
from api.schemas.strict import CachedSchema, Strict
from api.schemas.templates import MAX_TEMPLATE_CHARS, TemplateRef
from vlmq.chat_templates import RESERVED_NAMES

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


def _template_kind(value: Any) -> str | None:
    return "<text>" if isinstance(value, str) else "<stored>" if isinstance(value, dict | TemplateRef) else None


class JobRequest(Strict):
    """A chat with images and videos for one of the served models."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})
    model: str = Field(description="one of `GET /v1/models`")
    messages: list[Message] = Field(
        default_factory=list, max_length=4096, description="at least one, unless a `template` has them"
    )
    template: TemplateRef | None = Field(None, description="a stored prompt, in place of `messages`")
    variables: dict[str, Any] = Field(default_factory=dict, description="what the `template` takes")
    chat_template: (
        Annotated[
            Annotated[str, Field(min_length=1, max_length=MAX_TEMPLATE_CHARS), Tag("<text>")]
            | Annotated[TemplateRef, Tag("<stored>")],
            Discriminator(
                _template_kind,
                custom_error_type="text_or_reference",
                custom_error_message="Takes a template as text, or a stored one as an object with name and version",
            ),
        ]
        | None
    ) = Field(None, description="in place of the checkpoint's own: Jinja as transformers takes it")
    template_kwargs: dict[str, Any] = Field(
        default_factory=dict, max_length=256, description="further variables for the chat template"
    )
    return_full_text: bool | None = Field(None, description="the answer begins with the prompt")
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

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        if self.template is None and not self.messages:
            raise PydanticCustomError("missing", "This field is required", {"field": "messages"})
        if self.template is not None and self.messages:
            raise PydanticCustomError("either", "Is in place of messages; leave one out", {"field": "template"})
        if self.variables and self.template is None:
            raise PydanticCustomError("alone", "Goes with a template", {"field": "variables"})
        for name in self.template_kwargs:
            if name in RESERVED_NAMES or not name.isidentifier() or name.startswith("_"):
                text = "Is not for templates; the request has fields of its own, or it is no name of a variable"
                raise PydanticCustomError("reserved", text, {"field": f"template_kwargs.{name[:64]}"})
        return self

    def prompt_fields(self) -> dict[str, Any]:
        """What the worker reads about the prompt beside the messages: only what was given."""
        fields: dict[str, Any] = {}
        if isinstance(self.chat_template, str):
            fields["chat_template"] = self.chat_template
        if self.template_kwargs:
            fields["template_kwargs"] = self.template_kwargs
        if self.return_full_text:
            fields["return_full_text"] = True
        if self.template is not None:
            fields |= {"template": self.template.model_dump(), "variables": self.variables}
        return fields


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
