"""Writes the pages of docs/ that follow from the code: errors, settings and the command line."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import AliasChoices, BaseModel, SecretStr
from pydantic.fields import FieldInfo
from typer.main import get_command

from vlmq.cli import app
from vlmq.config import Settings, Timing, Webhooks
from vlmq.errors import CONSEQUENCES
from vlmq.limits import Limits
from vlmq.served_model import ServedModel

DOCS = Path(__file__).resolve().parent.parent / "docs"
_MADE = "<!-- Made by `make docs` from {}; edit that. -->"
_WIDTH = 100


def pages() -> dict[str, str]:
    """The text of each page by its file name."""
    return {"errors.md": _errors(), "configuration.md": _configuration(), "cli.md": _command_line()}


def write(folder: Path = DOCS) -> None:
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


def _errors() -> str:
    rows = [
        f"| `{code}` | {consequence.status} | {consequence.title} | {'yes' if consequence.retryable else ''} |"
        for code, consequence in CONSEQUENCES.items()
    ]
    return "\n".join(
        [
            _MADE.format("vlmq/errors.py"),
            "# Errors",
            "",
            "An answer with an error is RFC 9457 `application/problem+json`; its member `error` has OpenAI's form. A "
            "job that failed carries the same `error`.",
            "",
            "```json",
            '{"type": "urn:vlmq:error:model_not_found", "title": "This model is not served", "status": 422,',
            ' "detail": "…", "instance": "/v1/jobs", "request_id": "…",',
            ' "error": {"message": "…", "type": "invalid_request_error", "code": "model_not_found", "param": "model"}}',
            "```",
            "",
            "`code` is stable; go by it, not by the message. `param` names the field at fault. *Tried again* says "
            "whether a job that meets the error is queued anew, up to `VLMQ_MAX_ATTEMPTS` times. Answers with 429 and "
            "503 carry `Retry-After`.",
            "",
            "| code | status | means | tried again |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _configuration() -> str:
    sections = (
        ("Limits: what a request may ask for", Limits, "VLMQ_LIMITS__"),
        ("Timing: how the parts wait for each other", Timing, "VLMQ_TIMING__"),
        ("Webhooks", Webhooks, "VLMQ_WEBHOOKS__"),
    )
    lines = [
        _MADE.format("vlmq/config.py"),
        "# Configuration",
        "",
        "Every setting is an environment variable, or a line of the file `.env` in the working directory. All parts of "
        "a deployment (API, workers) take the same ones. A setting that cannot be used stops the start with a message "
        "that names it.",
        "",
        *_table(Settings, "VLMQ_"),
        "",
        "## Served models",
        "",
        "`VLMQ_MODELS` is JSON: a name for each model, and its settings. `VLMQ_MODELS_FILE`, or `--models-file` of a "
        "command, names a TOML or JSON file with the same content: a table for each model under its name. What the "
        "settings do is told in [serving.md](serving.md).",
        "",
        "```bash",
        """VLMQ_MODELS='{"smol": {"checkpoint": "HuggingFaceTB/SmolVLM-256M-Instruct", "max_model_len": 4096}}'""",
        "```",
        "",
        *_table(ServedModel, ""),
        "",
    ]
    for title, model, prefix in sections:
        lines += [f"## {title}", "", *_table(model, prefix), ""]
    return "\n".join(lines)


def _table(model: type[BaseModel], prefix: str) -> Iterator[str]:
    yield "| setting | default | |"
    yield "|---|---|---|"
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            yield f"| `{prefix}{name.upper()}__…` | | see below |"
            continue
        alias = field.validation_alias
        names = alias.choices[:1] if isinstance(alias, AliasChoices) else [alias]
        variable = names[0] or (f"{prefix}{name.upper()}" if prefix else name)
        yield f"| `{variable}` | {_default(field)} | {_escape(field.description or _choices(field))} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "(needed)"
    value: Any = field.get_default(call_default_factory=True)
    if not value and value is not False:
        return ""
    if isinstance(value, SecretStr):
        return "(secret)"
    if isinstance(value, dict):
        return "the bundled " + ", ".join(f"`{name}`" for name in value)
    if isinstance(value, frozenset | tuple):
        items = sorted(value) if isinstance(value, frozenset) else value
        return f"`{', '.join(f'{item:g}' if isinstance(item, float) else str(item) for item in items)}`"
    return f"`{value:g}`" if isinstance(value, float) and value < 1e5 else f"`{value}`"


def _choices(field: FieldInfo) -> str:
    return " | ".join(str(choice) for choice in get_args(field.annotation) if isinstance(choice, str))


def _escape(text: str) -> str:
    return re.sub(r"([|<>])", r"\\\1", text)


def _command_line() -> str:
    lines = [
        _MADE.format("vlmq/cli*.py"),
        "# The command line",
        "",
        "Commands that use a running service take its address from `--url` or `VLMQ_URL`, and the key from `--api-key` "
        "or `VLMQ_API_KEY`. The answer goes to standard output, everything else to standard error. The exit status is "
        "0 when the job completed, 1 when it failed, was cancelled or expired, 2 for a wrong command line, and 130 "
        "after Ctrl-C.",
        "",
    ]
    for names, text in _help_texts(get_command(app), ("vlmq",)):
        lines += [f"## {' '.join(names)}", "", "```text", text.rstrip(), "```", ""]
    return "\n".join(lines)


def _help_texts(command: Any, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    context = command.make_context(
        " ".join(names),
        [],
        resilient_parsing=True,
        terminal_width=_WIDTH,
        max_content_width=_WIDTH,
        help_option_names=["-h", "--help"],
    )
    text = command.get_help(context)
    yield names, "\n".join(line.rstrip() for line in text.splitlines())
    for name, child in getattr(command, "commands", {}).items():
        yield from _help_texts(child, (*names, name))


if __name__ == "__main__":
    write()
