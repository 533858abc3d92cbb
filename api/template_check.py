"""What is wrong with a template that is to be stored, as far as that shows without running it."""

from api.errors import InvalidRequestError
from api.schemas.templates import MEDIA_TYPES, TemplateMediaPart, TemplateRequest
from vlmq.chat_templates import check_template
from vlmq.errors import ErrorCode, VlmqError


def check_stored(body: TemplateRequest) -> None:
    """Its Jinja, and that texts and media use declared variables of the right type.

    Raises:
        InvalidRequestError: everything that was found.
    """
    errors = _chat_errors(body.chat_template) if body.chat_template is not None else _prompt_errors(body)
    if errors:
        raise InvalidRequestError(errors)


def _chat_errors(source: str) -> list[VlmqError]:
    try:
        check_template(source, "chat_template")
    except VlmqError as error:
        return [error]
    return []


def _prompt_errors(body: TemplateRequest) -> list[VlmqError]:
    errors: list[VlmqError] = []
    for_text = [name for name, variable in body.variables.items() if variable.type not in MEDIA_TYPES]
    placed: set[str] = set()
    for at, message in enumerate(body.messages):
        in_parts = not isinstance(message.content, str)
        for index, part in enumerate(message.parts):
            where = f"messages.{at}.content" + (f".{index}" if in_parts else "")
            if not isinstance(part, TemplateMediaPart):
                try:
                    check_template(part.text, f"{where}.text" if in_parts else where, declared=for_text)
                except VlmqError as error:
                    errors.append(error)
                continue
            declared = body.variables.get(part.variable)
            placed.add(part.variable)
            if declared is None or declared.type != part.type:
                problem = f"{part.variable[:64]} is not declared as a variable of the type {part.type}."
                errors.append(VlmqError(ErrorCode.INVALID_REQUEST, problem, param=f"{where}.variable"))
    for name, variable in body.variables.items():
        if variable.type in MEDIA_TYPES and name not in placed:
            problem = f"No message has a part {{type: {variable.type}, variable: {name}}} for it."
            errors.append(VlmqError(ErrorCode.INVALID_REQUEST, problem, param=f"variables.{name}"))
    return errors
