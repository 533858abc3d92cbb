"""What users' Jinja finds around it, and what it may print."""

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from vlmq.errors import ErrorCode, VlmqError


class _GenerationTag(Extension):
    """`{% generation %}` marks what the assistant says, for those who train; here it stands for its content."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _TemplateDict:
    """`dict(…)` without the attributes of a class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _TemplateNamespace(Namespace):
    """`namespace(…)` without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        values = dict(*args[1:], **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(args[0], values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError("a namespace takes no name that begins with an underscore")


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: Any) -> NoReturn:
    raise TemplateError(str(message))


def _strftime_now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)


def _printed(value: Any) -> Any:
    """What is printed as it is; the rest would show where it lies in this process' memory."""
    if not _has_text(value):
        message = "The template prints a function or something else that is no text; does it lack its ( ) or `| list`?"
        raise VlmqError(ErrorCode.TEMPLATE_ERROR, message)
    return value


def _has_text(value: Any) -> bool:
    if value is None or isinstance(value, str | bytes | int | float | range | Undefined):
        return True
    if isinstance(value, Mapping):
        return all(_has_text(key) and _has_text(each) for key, each in value.items())
    return isinstance(value, Collection) and all(map(_has_text, value))


def make_environment() -> ImmutableSandboxedEnvironment:
    """What transformers' chat templates find around them, and nothing that reaches out of it."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, finalize=_printed, extensions=[_GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "dict": _TemplateDict(),
        "namespace": _TemplateNamespace,
    }
    return environment
