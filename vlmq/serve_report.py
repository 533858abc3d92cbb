"""What `vlmq serve` prints once it is ready."""

import json
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from models.worker import Worker
from vlmq.cli_jobs import DEFAULT_URL
from vlmq.config import Settings


def print_ready(console: Console, settings: Settings, url: str, workers: Sequence[Worker]) -> None:
    """Where it listens, what it holds, and something to try."""
    held = {worker.model: worker.details for worker in workers if worker.model is not None}
    console.print(f"\n[bold green]vlmq is ready[/] on [bold]{url}[/]", highlight=False)
    for model, details in sorted(held.items()):
        _print_row(console, "model", f"{model} ({_describe(details)})")
    _print_row(console, "docs", f"{url}/docs")
    body = {"model": next(iter(settings.models)), "messages": [{"role": "user", "content": "Hello"}]}
    key = "-H 'Authorization: Bearer …' " if settings.api_keys else ""
    _print_row(console, "try", f"curl {url}/v1/jobs {key}-H 'Content-Type: application/json' -d '{json.dumps(body)}'")
    options = ("" if url == DEFAULT_URL else f" --url {url}") + (" --api-key …" if settings.api_keys else "")
    _print_row(console, "", f'{command()} submit cat.jpg "What is this?"{options}')
    if not settings.api_keys and settings.host not in ("127.0.0.1", "localhost", "::1"):
        console.print("[yellow]whoever reaches this port may use it; set VLMQ_API_KEYS=tenant:key[/]", highlight=False)
    console.print("Ctrl-C stops everything\n", style="dim", highlight=False)


def command() -> str:
    """`vlmq` as a shell finds it here: by name, else the one of this environment, seen from the working directory."""
    if shutil.which("vlmq") is not None:
        return "vlmq"
    beside = Path(sys.executable).parent / "vlmq"
    if not beside.is_file():
        return "python -m vlmq"
    return shlex.quote(str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside))


def told_stage(details: Mapping[str, Any]) -> str:
    """How far a model's loading is, for example " (downloading 42%)"."""
    if not details.get("stage"):
        return ""
    share = "" if details.get("progress") is None else f" {details['progress']:.0%}"
    return f" ({str(details['stage']).replace('_', ' ')}{share})"


def _print_row(console: Console, name: str, value: str) -> None:
    console.print(f"  [dim]{name:<6}[/] {escape(value)}", highlight=False, soft_wrap=True)


def _describe(details: dict[str, object]) -> str:
    """For example "on NVIDIA H200, bfloat16, sdpa, 8192 tokens of context"."""
    words = [f"on {details['device']}"] if details.get("device", "none") != "none" else []
    words += [str(details[name]) for name in ("dtype", "attn_implementation") if details.get(name, "none") != "none"]
    if details.get("quantization"):
        words.append(f"{details['quantization']}, {details['weight_bytes']:,} bytes of weights")
    if details.get("max_context"):
        words.append(f"{details['max_context']} tokens of context")
    return ", ".join(words)
