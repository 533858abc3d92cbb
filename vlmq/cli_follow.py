"""Following a job on the terminal: the answer goes to standard output, everything else to standard error."""

import sys
from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape

from vlmq.cli_terminal import harmless, print_json
from vlmq.client import Client, Event, Job


def follow(client: Client, job_id: str, events: Iterable[Event], *, as_json: bool) -> int:
    """Print the answer as it comes; returns 0 if the job completed. Ctrl-C asks whether to cancel or to detach.

    `events` is the job's stream.
    """
    told = Console(stderr=True, highlight=False, soft_wrap=True)
    screen = _Screen(told, silent=as_json)
    try:
        for event in events:
            screen.show(event)
    except KeyboardInterrupt:
        screen.end_line()
        return _interrupted(client, job_id, told)
    job = client.get(job_id)
    if as_json:
        print_json(job.raw)
    else:
        screen.finish(job)
    return 0 if job.status == "completed" else 1


def print_events(client: Client, job_id: str) -> int:
    """Print each event of the stream as a line of JSON."""
    status = None
    for event in client.events(job_id):
        print_json({"id": event.id, "type": event.type, "data": event.data})
        status = event.data.get("status", status) if event.type == "status" else status
    return 0 if status == "completed" else 1


def print_result(job: Job, *, as_json: bool) -> None:
    """A job in one line, its id first."""
    if as_json:
        print_json(job.raw)
    else:
        print(harmless(job.id))
        print(_status_line(job), file=sys.stderr)


class _Screen:
    """What has been shown of a job so far."""

    def __init__(self, told: Console, *, silent: bool) -> None:
        self._told, self._silent = told, silent
        self._attempt = 0
        self._text = ""

    def show(self, event: Event) -> None:
        if self._silent:
            return
        if event.attempt != self._attempt:
            if self._text and not event.is_final:
                self.end_line()
                self._told.print("[yellow]the worker was lost; the answer begins anew[/]")
            self._attempt, self._text = event.attempt, ""
        if event.type == "delta":
            self._write(str(event.data["text"]))
        elif event.type == "progress" and self._told.is_terminal:
            self._told.print(f"[dim]{escape(_progress(event))}[/]")
        elif event.type == "status" and event.data["status"] == "queued" and self._told.is_terminal:
            self._told.print("[dim]queued[/]")

    def finish(self, job: Job) -> None:
        # What the stream did not bring (Redis may have lost some of it) is in the job.
        if not job.output_text.startswith(self._text):
            self.end_line()
            self._told.print("[yellow]some of the stream was lost; the whole answer:[/]")
            self._text = ""
        self._write(job.output_text.removeprefix(self._text))
        self.end_line()
        outputs = job.raw.get("outputs") or []
        for number, output in enumerate(outputs[1:], 2):
            self._told.print(f"[dim]text {number} of {len(outputs)}[/]")
            self._text = ""
            self._write(str(output["text"]))
            self.end_line()
        if job.raw.get("degraded"):
            self._told.print("[yellow]the memory did not take it all; fewer frames or pixels were looked at[/]")
        if job.status != "completed":
            self._told.print(f"[red]{escape(_status_line(job))}[/]")
        elif self._told.is_terminal:
            self._told.print(f"[dim]{escape(_summary(job))}[/]")

    def end_line(self) -> None:
        if self._text and not self._text.endswith("\n"):
            print(flush=True)

    def _write(self, text: str) -> None:
        sys.stdout.write(harmless(text) if sys.stdout.isatty() else text)
        sys.stdout.flush()
        self._text += text


def _interrupted(client: Client, job_id: str, told: Console) -> int:
    detached = f"the job goes on; follow it with: vlmq watch {job_id}"
    if not (sys.stdin.isatty() and told.is_terminal):
        told.print(detached)
        return 130
    try:
        answer = told.input("cancel the job? [y/N] ", markup=False)
    except (KeyboardInterrupt, EOFError):
        told.print()
        answer = ""
    if answer.strip().lower() in ("y", "yes"):
        told.print(escape(_status_line(client.cancel(job_id))))
    else:
        told.print(detached)
    return 130


def _status_line(job: Job) -> str:
    if job.error is not None:
        return harmless(f"{job.id} {job.status}: {job.error['message']} ({job.error['code']})")
    if job.raw.get("cancel_requested") and not job.is_final:
        return f"{job.id} is being cancelled"
    return f"{job.id} {job.status}"


def _progress(event: Event) -> str:
    stage, done, total = (event.data.get(name) for name in ("stage", "done", "total"))
    if stage == "media" and total:
        return f"loading media, {done} of {total}"
    known = {
        "media": "loading media",
        "generating": "generating",
        "degraded": "out of memory; trying with fewer frames or pixels",
    }
    return known.get(str(stage), str(stage))


def _summary(job: Job) -> str:
    """For example "12 tokens · image 64 tokens · 0.41 s · job_…"."""
    usage, timings = job.raw.get("usage") or {}, job.raw.get("timings") or {}
    words = [f"{usage[name]} {noun}" for name, noun in _COUNTS if usage.get(name)]
    if "total" in timings:
        words.append(f"{timings['total']:.2f} s")
    return " · ".join([*words, str(job.raw.get("finish_reason")), job.id])


_COUNTS = (("prompt_tokens", "prompt tokens"), ("completion_tokens", "tokens written"))
