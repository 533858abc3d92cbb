"""Stored templates: chat templates in Jinja, and prompts with declared variables."""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from api.schemas.content import content_kind
from api.schemas.generation import Generation
from api.schemas.strict import Strict

# Reading these takes a third of a second, in which an API process does nothing else; real ones have 20,000 at most.
MAX_TEMPLATE_CHARS = 50_000
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

VariableType = Literal["string", "number", "boolean", "list", "enum", "image", "video"]
MEDIA_TYPES = ("image", "video")

_Jinja = Annotated[str, Field(min_length=1, max_length=MAX_TEMPLATE_CHARS)]
_VariableName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]


class TemplateRef(Strict):
    """A stored template."""

    name: str = Field(pattern=NAME)
    version: int | None = Field(None, ge=1, le=2**31 - 1, description="the newest, unless it is named")


class Variable(Strict):
    """What a prompt template takes."""

    type: VariableType = Field(description="a `list` holds text; an `image` or `video` is a content part")
    required: bool = True
    default: Any = Field(None, description="for one that is not required; without it, it is null or left out")
    values: list[Annotated[str, Field(max_length=256)]] | None = Field(
        None, min_length=1, max_length=256, description="what an `enum` may be"
    )
    description: str | None = Field(None, max_length=1000)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if (self.type == "enum") != (self.values is not None):
            raise PydanticCustomError("values", "Is for the type enum, which needs it", {"field": "values"})
        if self.default is not None:
            if len(json.dumps(self.default, ensure_ascii=False)) > MAX_TEMPLATE_CHARS:
                text = "May have {most} characters"
                raise PydanticCustomError("long", text, {"field": "default", "most": MAX_TEMPLATE_CHARS})
            if self.required:
                raise PydanticCustomError("default", "Is for variables with required: false", {"field": "default"})
            if self.type in MEDIA_TYPES or (problem := self.problem_with(self.default)) is not None:
                text = "Media have no default" if self.type in MEDIA_TYPES else problem
                raise PydanticCustomError("default", text or "", {"field": "default"})
        return self

    def problem_with(self, value: Any) -> Any:
        """What is wrong with a value, or None. Media are for others to look at."""
        match self.type:
            case "string":
                fits, words = isinstance(value, str), "text"
            case "number":
                fits, words = isinstance(value, int | float) and not isinstance(value, bool), "a number"
            case "boolean":
                fits, words = isinstance(value, bool), "true or false"
            case "list":
                fits = isinstance(value, list) and all(isinstance(item, str) for item in value)
                words = "a list of texts"
            case "enum":
                fits, words = value in (self.values or []), f"one of {', '.join(self.values or [])}"
            case _:
                fits, words = isinstance(value, dict), f"a content part of type {self.type}"
        return None if fits else f"Takes {words}"


class TemplateTextPart(Strict):
    type: Literal["text"]
    text: _Jinja


class TemplateMediaPart(Strict):
    """The place of an image or video."""

    type: Literal["image", "video"]
    variable: str = Field(description="a variable of the same type")


TemplatePart = TemplateTextPart | TemplateMediaPart


class TemplateMessage(Strict):
    """One turn of a prompt template; texts are Jinja."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[
        Annotated[_Jinja, Tag("<text>")]
        | Annotated[
            list[Annotated[TemplatePart, Field(discriminator="type")]],
            Field(min_length=1, max_length=256),
            Tag("<parts>"),
        ],
        Discriminator(
            content_kind, custom_error_type="text_or_list", custom_error_message="Takes text, or a list of parts"
        ),
    ]

    @property
    def parts(self) -> list[TemplatePart]:
        return [TemplateTextPart(type="text", text=self.content)] if isinstance(self.content, str) else self.content


EXAMPLE: dict[str, Any] = {
    "name": "describe",
    "kind": "prompt",
    "messages": [
        {"role": "system", "content": "Answer in {{ language }}."},
        {
            "role": "user",
            "content": [
                {"type": "image", "variable": "photo"},
                {"type": "text", "text": "Describe {% if thing %}the {{ thing }}{% else %}the picture{% endif %}."},
            ],
        },
    ],
    "variables": {
        "photo": {"type": "image"},
        "language": {"type": "enum", "values": ["English", "German"], "required": False, "default": "English"},
        "thing": {"type": "string", "required": False},
    },
    "generation": {"max_new_tokens": 128},
}


class TemplateRequest(Strict):
    """A template to store: the first version of a name, or the next."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    name: str = Field(pattern=NAME)
    kind: Literal["chat", "prompt"]
    description: str | None = Field(None, max_length=1000)
    chat_template: _Jinja | None = Field(None, description="of the kind `chat`: Jinja as transformers takes it")
    messages: list[TemplateMessage] = Field(default_factory=list, max_length=256, description="of the kind `prompt`")
    variables: dict[_VariableName, Variable] = Field(default_factory=dict, max_length=256)
    generation: Generation = Field(Generation(), description="what a job gets that does not say otherwise")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.kind == "chat":
            wanted, others = "chat_template", ["messages", "variables", "generation"]
        else:
            wanted, others = "messages", ["chat_template"]
        if not getattr(self, wanted):
            raise PydanticCustomError("kind", "The kind {kind} needs it", {"field": wanted, "kind": self.kind})
        for name in others:
            if name in self.model_fields_set:
                raise PydanticCustomError("kind", "The kind {kind} has none", {"field": name, "kind": self.kind})
        texts = [part.text for message in self.messages for part in message.parts if part.type == "text"]
        if sum(map(len, texts)) > MAX_TEMPLATE_CHARS:
            text = "May have {most} characters of text together"
            raise PydanticCustomError("long", text, {"field": "messages", "most": MAX_TEMPLATE_CHARS})
        return self

    def stored(self) -> dict[str, Any]:
        kept = {"chat_template"} if self.kind == "chat" else {"messages", "variables", "generation"}
        return self.model_dump(include={"kind", "description", *kept}, exclude_none=True)
