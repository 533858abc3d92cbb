"""Users' Jinja: what it may say, which the door checks, and how it is rendered, which only a limited child does.

The environment offers what transformers' chat templates find in theirs, so that a template written for transformers
renders the same text here. Parsing is safe anywhere; compiling is not (`{{ 'a' * 10**10 }}` is computed by it).
"""

import re
import secrets
from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

from jinja2 import TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.meta import find_undeclared_variables

from vlmq.errors import ErrorCode, VlmqError
from vlmq.template_environment import make_environment

# What a request decides with fields of its own, or not at all; `tokenize` would even make transformers fetch URLs.
RESERVED_NAMES = frozenset(
    {
        "conversation", "messages", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize",
        "return_tensors", "return_dict", "return_assistant_tokens_mask", "load_audio_from_video", "processor_kwargs",
        "sanitize_control_tokens", "conversations", "self",
    }
)  # fmt: skip

# A rendered text travels as JSON, in which a character takes 12 bytes at most.
MAX_RENDERED_CHARS = 1_300_000

_OTHER_FILES = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)


_PARSING = make_environment()


def check_template(source: str, param: str | None, *, declared: Iterable[str] | None = None) -> None:
    """Refuse at the door what can be seen without running the template.

    `declared` names the variables that it may use; None allows any.

    Raises:
        VlmqError: TEMPLATE_ERROR for what is no Jinja or uses undeclared variables, TEMPLATE_FORBIDDEN for what no
            template may do, TEMPLATE_LIMIT for what is nested too deeply; all with `param`.
    """
    try:
        tree = _PARSING.parse(source)
        if (problem := _forbidden(tree)) is not None:
            raise VlmqError(ErrorCode.TEMPLATE_FORBIDDEN, problem, param=param)
        if declared is not None:
            _check_declared(tree, frozenset(declared), param)
    except TemplateSyntaxError as error:
        raise _not_jinja(error, param) from None
    except RecursionError:
        raise VlmqError(ErrorCode.TEMPLATE_LIMIT, "The template is nested too deeply.", param=param) from None
    except (ValueError, OverflowError):
        message = "The template holds a number that cannot be read."
        raise VlmqError(ErrorCode.TEMPLATE_ERROR, message, param=param) from None


def _forbidden(tree: nodes.Template) -> str | None:
    for node in tree.find_all(nodes.Node):
        if isinstance(node, _OTHER_FILES):
            return f"A template stands alone: include, import and extends are not allowed (line {node.lineno})."
        if isinstance(node, nodes.Filter) and node.name == "attr":
            return f"The filter attr is not allowed; write value.name (line {node.lineno})."
        name = node.attr if isinstance(node, nodes.Getattr) else None
        if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
            name = node.arg.value
        if isinstance(name, str) and name.startswith("__"):
            return f"Python's internals are not for templates: {name[:64]} (line {node.lineno})."
    return None


def _check_declared(tree: nodes.Template, declared: frozenset[str], param: str | None) -> None:
    unknown = find_undeclared_variables(tree) - declared - set(_PARSING.globals)
    if unknown:
        names = ", ".join(sorted(declared)) or "none"
        message = f"The text uses {min(unknown)[:64]}, which is not among the declared variables ({names})."
        raise VlmqError(ErrorCode.TEMPLATE_ERROR, message, param=param)


def render_chat(source: str, messages: list[dict[str, Any]], variables: Mapping[str, Any], *, continues: bool) -> str:
    """The text of a chat; only in a limited child. `continues` leaves the last message's text open at its end.

    Raises:
        VlmqError: TEMPLATE_ERROR, TEMPLATE_FORBIDDEN or TEMPLATE_LIMIT; besides, what a hostile template brings about
            (MemoryError, or the end of the process).
    """
    # The space tells whether the template trims what it writes.
    mark = f"[{secrets.token_hex(8)}]"
    if continues:
        messages = _with_mark(messages, f"{mark} ")
    names = {"tools": None, "documents": None} | dict(variables)
    text = render_text(source, names | {"messages": messages, "add_generation_prompt": not continues})
    if not continues:
        return text
    at = text.rfind(mark)
    if at < 0:
        message = "The template leaves out the end of the last message, so that it cannot be continued."
        raise VlmqError(ErrorCode.TEMPLATE_ERROR, message)
    return text[:at] if text.startswith(f"{mark} ", at) else text[:at].rstrip()


def _with_mark(messages: list[dict[str, Any]], mark: str) -> list[dict[str, Any]]:
    messages = deepcopy(messages)
    last = messages[-1]
    if isinstance(last["content"], str):
        last["content"] += mark
        return messages
    for part in reversed(last["content"]):
        if "text" in part:
            part["text"] += mark
            return messages
    raise VlmqError(ErrorCode.TEMPLATE_ERROR, "The last message has no text that could be continued.")


def render_text(source: str, variables: Mapping[str, Any]) -> str:
    """The text that a template makes of its variables; raises like `render_chat`."""
    check_template(source, None)
    pieces: list[str] = []
    length = 0
    try:
        for piece in make_environment().from_string(source).generate(dict(variables)):
            pieces.append(piece)
            length += len(piece)
            if length > MAX_RENDERED_CHARS:
                message = f"The template writes more than {MAX_RENDERED_CHARS} characters."
                raise VlmqError(ErrorCode.TEMPLATE_LIMIT, message)
        text = "".join(pieces)
        text.encode()
    except (VlmqError, MemoryError):
        raise
    except (RecursionError, OverflowError):
        raise VlmqError(ErrorCode.TEMPLATE_LIMIT, "The template counts too far, or calls itself too often.") from None
    except Exception as error:
        raise _explained(error) from error
    if "\0" in text:
        raise VlmqError(ErrorCode.TEMPLATE_ERROR, "The template writes the NUL character.")
    return text


def _explained(error: Exception) -> VlmqError:
    code = ErrorCode.TEMPLATE_ERROR
    if isinstance(error, SecurityError):
        return VlmqError(ErrorCode.TEMPLATE_FORBIDDEN, "The template reaches for what templates may not use.")
    if isinstance(error, TemplateSyntaxError):
        return _not_jinja(error, None)
    if isinstance(error, TemplateError):
        return VlmqError(code, f"The template refused: {_shown(error.message or 'it gives no reason')[:500]}")
    if isinstance(error, UnicodeEncodeError):
        return VlmqError(code, "The template writes half a surrogate pair.")
    return VlmqError(code, f"The template failed ({type(error).__name__}).")


def _shown(message: str) -> str:
    """What a template says, as text that can be stored, without addresses of this process."""
    return re.sub(r" at 0x[0-9a-f]+", "", re.sub("[\0\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", message))


def _not_jinja(error: TemplateSyntaxError, param: str | None) -> VlmqError:
    message = f"The template is not valid Jinja (line {error.lineno}): {_shown(error.message or '')[:300]}"
    return VlmqError(ErrorCode.TEMPLATE_ERROR, message, param=param)
