"""Jobs and findings as tables on the terminal."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vlmq.cli_terminal import harmless, print_json
from vlmq.client import Job
from vlmq.finding import Finding

_LEVEL_COLORS = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_MODEL_COLORS = {"ready": "green", "loading": "cyan", "failed": "red", "unavailable": "yellow"}
_TIMINGS = ("queued", "media", "prompt", "engine_wait", "first_token", "generation", "total")
_COLORS = {"completed": "green", "failed": "red", "expired": "red", "cancelled": "yellow", "in_progress": "cyan"}


def print_jobs(jobs: Sequence[Job], *, as_json: bool) -> None:
    if as_json:
        print_json([job.raw for job in jobs])
        return
    if not jobs:
        print("no jobs")
        return
    # On a terminal a line is cut to its width; another program gets it whole.
    console = Console(highlight=False)
    for job in jobs:
        answer = " ".join((job.output_text or str((job.error or {}).get("code", ""))).split())
        line = Text.assemble(
            f"{job.id}  ",
            (f"{job.status:<11}", _COLORS.get(job.status, "")),
            f"  {_local_time(str(job.raw['created_at'])):<16}",
            f"  {_seconds((job.raw.get('timings') or {}).get('total')):>8}  ",
            harmless(answer),
        )
        if console.is_terminal:
            console.print(line, no_wrap=True, overflow="ellipsis")
        else:
            print(line.plain.rstrip())


def print_job(job: Job, deliveries: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json(job.raw | {"deliveries": list(deliveries)})
        return
    console = Console(highlight=False)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("job", job.id)
    table.add_row("status", _status(job))
    for name in ("model", "created_at", "started_at", "finished_at", "attempts", "finish_reason"):
        if job.raw.get(name) is not None:
            table.add_row(name.replace("_", " "), _plain(str(job.raw[name])))
    told = {"usage": job.raw.get("usage"), "timings": _timings(job), "metadata": job.raw.get("metadata")}
    for name, values in told.items():
        if values:
            table.add_row(name, _plain(", ".join(f"{key} {value}" for key, value in values.items())))
    if job.error is not None:
        table.add_row("error", Text(harmless(f"{job.error['message']} ({job.error['code']})"), style="red"))
    for delivery in deliveries:
        tries = "" if delivery["tries"] < 2 and delivery["status"] == "delivered" else f", tries: {delivery['tries']}"
        table.add_row("webhook", _plain(f"{delivery['event']} {delivery['status']} {delivery['url']}{tries}"))
    if job.output_text:
        table.add_row("answer", _plain(job.output_text))
    console.print(table)


def print_models(models: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json(list(models))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "state", "checkpoint", "quantization", "bytes", "device"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "bytes" else "left")
    for model in models:
        details = model.get("details") or {}
        state = Text(_model_state(model), style=_MODEL_COLORS.get(str(model["state"]), ""))
        size = f"{details['weight_bytes']:,}" if details.get("weight_bytes") else ""
        words = (model["checkpoint"], details.get("quantization") or model.get("quantization") or "", size)
        told = [_plain(str(word)) for word in (*words, details.get("device", ""))]
        table.add_row(_plain(str(model["id"])), state, *told)
    Console(highlight=False).print(table)


def print_findings(findings: Sequence[Finding], *, as_json: bool) -> None:
    if as_json:
        print_json([asdict(finding) for finding in findings])
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        words = _plain(finding.message)
        if finding.advice:
            words.append(harmless(f"\n{finding.advice}"), style="dim")
        table.add_row(Text(finding.level, style=_LEVEL_COLORS[finding.level]), _plain(finding.subject), words)
    Console().print(table)


def _plain(text: str) -> Text:
    return Text(harmless(text))


def _model_state(model: dict[str, Any]) -> str:
    """For example "ready", "quantizing 42%", "failed: The checkpoint x is gated"."""
    if model.get("stage"):
        share = "" if model.get("progress") is None else f" {model['progress']:.0%}"
        return harmless(f"{model['stage']}{share}".replace("_", " "))
    return harmless(f"failed: {model['error']}" if model.get("error") else str(model["state"]))


def _status(job: Job) -> Text:
    return Text(job.status, style=_COLORS.get(job.status, ""))


def _local_time(timestamp: str) -> str:
    """The time of day, with the day if it is not today."""
    moment = datetime.fromisoformat(timestamp).astimezone()
    today = datetime.now(UTC).astimezone().date()
    return f"{moment:%H:%M:%S}" if moment.date() == today else f"{moment:%Y-%m-%d %H:%M}"


def _timings(job: Job) -> dict[str, str]:
    """In the order in which they pass."""
    timings = job.raw.get("timings") or {}
    known = [name for name in _TIMINGS if timings.get(name) is not None]
    return {name: f"{timings[name]:.3f} s" for name in known}


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} s"
