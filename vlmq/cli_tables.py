"""Jobs and findings as tables on the terminal."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vlmq.client import Job
from vlmq.finding import Finding

_LEVEL_COLORS = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_COLORS = {"completed": "green", "failed": "red", "expired": "red", "cancelled": "yellow", "in_progress": "cyan"}


def print_jobs(jobs: Sequence[Job], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([job.raw for job in jobs], ensure_ascii=False))
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
            answer,
        )
        if console.is_terminal:
            console.print(line, no_wrap=True, overflow="ellipsis")
        else:
            print(line.plain.rstrip())


def print_job(job: Job, deliveries: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(job.raw | {"deliveries": list(deliveries)}, ensure_ascii=False))
        return
    console = Console(highlight=False)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("job", job.id)
    table.add_row("status", _status(job))
    for name in ("model", "created_at", "started_at", "finished_at", "attempts", "finish_reason"):
        if job.raw.get(name) is not None:
            table.add_row(name.replace("_", " "), str(job.raw[name]))
    for name in ("usage", "timings", "metadata"):
        if job.raw.get(name):
            table.add_row(name, Text(", ".join(f"{key} {value}" for key, value in job.raw[name].items())))
    if job.error is not None:
        table.add_row("error", Text(f"{job.error['message']} ({job.error['code']})", style="red"))
    for delivery in deliveries:
        table.add_row("webhook", Text(f"{delivery['event']} {delivery['status']} {delivery['url']}"))
    if job.output_text:
        table.add_row("answer", Text(job.output_text))
    console.print(table)


def print_findings(findings: Sequence[Finding], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], ensure_ascii=False))
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        words = Text(finding.message)
        if finding.advice:
            words.append(f"\n{finding.advice}", style="dim")
        table.add_row(Text(finding.level, style=_LEVEL_COLORS[finding.level]), Text(finding.subject), words)
    Console().print(table)


def _status(job: Job) -> Text:
    return Text(job.status, style=_COLORS.get(job.status, ""))


def _local_time(timestamp: str) -> str:
    """The time of day, with the day if it is not today."""
    moment = datetime.fromisoformat(timestamp).astimezone()
    today = datetime.now(UTC).astimezone().date()
    return f"{moment:%H:%M:%S}" if moment.date() == today else f"{moment:%Y-%m-%d %H:%M}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} s"
