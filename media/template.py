"""Users' Jinja in a child: nothing but time, memory and text can be spent there, and each has its limit."""

import errno
import json
import os
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, Literal

from vlmq.chat_templates import render_chat, render_text
from vlmq.errors import ErrorCode, VlmqError

# Of processor time, by the kernel; and of waiting, by the worker.
CPU_S = 2
TIMEOUT_S = 2.5
# What a template may take beyond what every child has.
MEMORY_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class ChatTemplateJob:
    """A chat template and what it is given; `continues` leaves the last message open."""

    source: str
    messages: list[dict[str, Any]]
    variables: dict[str, Any]
    continues: bool
    what: Literal["chat"] = "chat"


@dataclass(frozen=True, slots=True)
class TextsJob:
    """Texts of a prompt template, each a template of its own, and the values of their variables."""

    sources: list[str]
    variables: dict[str, Any]
    what: Literal["texts"] = "texts"


TemplateJob = ChatTemplateJob | TextsJob


def as_bytes(job: TemplateJob) -> bytes:
    return json.dumps(asdict(job)).encode()


def template_limits() -> tuple[int, int]:
    """What this child may have for a template: bytes of address space, and seconds of processor time."""
    with open("/proc/self/statm") as file:  # noqa: PTH123 - a child imports nothing
        pages = int(file.read().split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE") + MEMORY_BYTES, CPU_S


def render(source: BinaryIO) -> dict[str, Any]:
    """The child's answer: `texts`, or the `error` for the user with a `detail` for the log."""
    try:
        return {"texts": _texts(json.load(source))}
    except VlmqError as error:
        return _refusal(error.code, error.message, error.__cause__)
    except MemoryError as error:
        return _refusal(ErrorCode.TEMPLATE_LIMIT, "The template needs too much memory.", error)


def _texts(job: dict[str, Any]) -> list[str]:
    if job["what"] == "chat":
        return [render_chat(job["source"], job["messages"], job["variables"], continues=job["continues"])]
    return [render_text(source, job["variables"]) for source in job["sources"]]


def _refusal(code: ErrorCode, message: str, error: BaseException | None) -> dict[str, Any]:
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        # Something was to be imported that `rehearse_template` does not meet, such as the codec of 'x'.encode('idna').
        code, message = ErrorCode.TEMPLATE_FORBIDDEN, "The template uses a part of Python that is not for templates."
    detail = None if error is None else f"{type(error).__name__}: {error}"[:500]
    return {"error": {"code": code, "message": message, "detail": detail}}


def rehearse_template() -> None:
    """Meet once, before the first fork, what rendering imports late: the compiler, and the telling of errors."""
    source = "{% generation %}{{ messages | tojson }}{{ strftime_now('%Y') }}{% endgeneration %}"
    render_chat(source, [{"role": "user", "content": "x"}], {}, continues=True)
    render_text("{{ lipsum(n=1) }}{{ '<a> b' | striptags | wordwrap(1) }}", {})
    for source in ("{{ 1 + 'a' }}", "{{ ''.__class__.x }}", "{{ x.y.z }}", "{% if %}"):
        try:
            render_text(source, {})
        except VlmqError:
            continue
