"""Jobs and findings as tables on the terminal."""

import json
from collections.abc import Sequence
from dataclasses import asdict
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
    table = Table(box=None, pad_edge=False)
    table.add_column("job", no_wrap=True)
    for name in ("status", "model", "created", "took"):
        table.add_column(name, no_wrap=True)
    table.add_column("answer", no_wrap=True, overflow="ellipsis")
    for job in jobs:
        error = job.error or {}
        table.add_row(
            job.id,
            _status(job),
            str(job.raw["model"]),
            str(job.raw["created_at"])[:19].replace("T", " "),
            _seconds((job.raw.get("timings") or {}).get("total")),
            Text(" ".join((job.output_text or str(error.get("code", ""))).split())),
        )
    Console().print(table)


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


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} s"
