"""A request that names stored templates -> the same request with their content in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from api.errors import InvalidRequestError, refuse_invalid
from api.schemas.content import Message, Part, TextPart
from api.schemas.generation import Generation
from api.schemas.generation_names import ALIASES
from api.schemas.job_request import JobRequest
from api.schemas.strict import Strict
from api.schemas.templates import TemplateMessage, TemplateRef, TemplateTextPart, Variable
from api.services import Services
from api.template_store import find_template
from vlmq.chat_templates import check_template
from vlmq.errors import ErrorCode, VlmqError

_MESSAGES: TypeAdapter[list[TemplateMessage]] = TypeAdapter(list[TemplateMessage])
_VARIABLES: TypeAdapter[dict[str, Variable]] = TypeAdapter(dict[str, Variable])
_PART_TYPES = {"image": ("image", "image_url", "input_image"), "video": ("video", "video_url")}


class VariableParts(Strict):
    """Those variables of a request that are media."""

    variables: dict[str, Annotated[Part, Field(discriminator="type")]]


@dataclass
class Source:
    """A request whose templates were looked up; `places` says which variable a part of the messages came from."""

    body: JobRequest
    places: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def naming_variables(self) -> Iterator[None]:
        """In errors about the messages, name the variable that is at fault."""
        try:
            yield
        except InvalidRequestError as refused:
            for error in refused.errors:
                self._rename(error)
            raise

    def _rename(self, error: VlmqError) -> None:
        for place, variable in self.places.items():
            if error.param is not None and (error.param + ".").startswith(f"{place}."):
                error.param = f"variables.{variable}{error.param.removeprefix(place)}"
                return


def look_up(services: Services, tenant: str, body: JobRequest) -> Source:
    """Put the content of stored templates into a copy of the request.

    Raises:
        VlmqError: NOT_FOUND for a template that is not there; what `check_template` raises.
        InvalidRequestError: what is wrong with the variables, each by its name.
    """
    if isinstance(body.chat_template, str):
        check_template(body.chat_template, "chat_template")
    stored_chat = body.chat_template if isinstance(body.chat_template, TemplateRef) else None
    if stored_chat is None and body.template is None:
        return Source(body)
    source = Source(body.model_copy())
    with services.database.read() as session:
        if stored_chat is not None:
            template = find_template(session, tenant, stored_chat, kind="chat", param="chat_template")
            source.body.chat_template = template.content["chat_template"]
        if body.template is not None:
            template = find_template(session, tenant, body.template, kind="prompt", param="template")
            source.body.template = TemplateRef(name=template.name, version=template.version)
            _fill(source, template.content)
    return source


def _fill(source: Source, content: dict[str, Any]) -> None:
    body, declared = source.body, _VARIABLES.validate_python(content["variables"])
    media, values = _read_variables(declared, body.variables)
    body.variables = values
    body.generation = _merged(content.get("generation", {}), body.generation)
    messages: list[Message] = []
    for message in _MESSAGES.validate_python(content["messages"]):
        parts: list[Part] = []
        for part in message.parts:
            if isinstance(part, TemplateTextPart):
                parts.append(TextPart(type="text", text=part.text))
            elif (given := media.get(part.variable)) is not None:
                source.places[f"messages.{len(messages)}.content.{len(parts)}"] = part.variable
                parts.append(given)
        if parts:
            messages.append(Message.model_construct(role=message.role, content=parts))
    if not messages:
        # Only media can be left out, and nothing else was there.
        name = next(name for name, variable in declared.items() if variable.type in _PART_TYPES)
        problem = f"variables.{name}: Without any of its media, this template has no message; give one."
        raise InvalidRequestError([VlmqError(ErrorCode.INVALID_REQUEST, problem, param=f"variables.{name}")])
    body.messages = messages


def _read_variables(declared: dict[str, Variable], given: dict[str, Any]) -> tuple[dict[str, Part], dict[str, Any]]:
    """The media, and the values of all others with their defaults."""
    errors: list[VlmqError] = []
    media: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for name in sorted(set(given).difference(declared)):
        message = f"variables.{name[:64]}: Unknown variable; this template takes: {', '.join(declared) or 'none'}."
        errors.append(VlmqError(ErrorCode.UNKNOWN_FIELD, message, param=f"variables.{name[:64]}"))
    for name, variable in declared.items():
        value, is_medium = given.get(name), variable.type in _PART_TYPES
        problem = None if value is None else variable.problem_with(value)
        if value is None and variable.required:
            problem = "This variable is required"
        elif value is None and not is_medium:
            values[name] = variable.default
        elif value is not None:
            (media if is_medium else values)[name] = value
        if problem is not None:
            param = f"variables.{name}"
            errors.append(VlmqError(ErrorCode.INVALID_REQUEST, f"{param}: {problem}.", param=param))
    if errors:
        raise InvalidRequestError(errors)
    return _read_media(declared, media), values


def _read_media(declared: dict[str, Variable], given: dict[str, Any]) -> dict[str, Part]:
    try:
        media = VariableParts.model_validate({"variables": given}).variables
    except ValidationError as invalid:
        refuse_invalid(invalid)
    for name, part in media.items():
        kind = declared[name].type
        if part.type not in _PART_TYPES[kind]:
            message = f"variables.{name}: Takes a content part of type {kind}."
            raise InvalidRequestError([VlmqError(ErrorCode.INVALID_REQUEST, message, param=f"variables.{name}")])
    return media


def _merged(defaults: dict[str, Any], given: Generation) -> Generation:
    own = given.model_dump(exclude_none=True)
    meant = {ALIASES.get(name, name) for name in own}
    kept = {name: value for name, value in defaults.items() if ALIASES.get(name, name) not in meant}
    try:
        return Generation.model_validate(kept | own)
    except ValidationError as invalid:
        # Each is valid for itself: it is what the job adds that does not go with the template's.
        message = f"generation: Does not go with the template's own: {invalid.errors()[0]['msg']}."
        raise InvalidRequestError([VlmqError(ErrorCode.INVALID_REQUEST, message, param="generation")]) from None
