"""`make demo`: the whole of vlmq in a minute, on the bundled model, with nothing faked.

Starts the stack, draws an image and a video that the model has never seen, asks about them over HTTP, prints the tokens
as they come, checks the answers against what was drawn, and receives and verifies the webhooks.
"""

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from os import getpid
from pathlib import Path
from random import Random

from rich.console import Console
from rich.table import Table

from checkpoints.mp4 import write_mp4
from checkpoints.scenes import random_clip, random_scene
from checkpoints.wording import describe
from vlmq.client import Client, Job
from vlmq.config import BUNDLED_MODEL, Settings
from vlmq.data_dir import with_own_secret
from vlmq.demo_pictures import draw_on_terminal
from vlmq.demo_receiver import Receiver
from vlmq.errors import ExplainedError
from vlmq.free_port import free_port
from vlmq.signing import tenant_secrets
from vlmq.supervisor import die_with_parent

START_S = 120.0
STOP_S = 30.0
WEBHOOK_S = 20.0
SEED = 7
FRAMES = 8
# The pictures stay here, to go on with.
PICTURES = Path(".demo")


@dataclass(frozen=True)
class Question:
    """What is asked about a file, and the right answer."""

    kind: str
    file: Path
    text: str
    answer: str


@dataclass
class Asked:
    """How a question went; seconds from the request on."""

    question: Question
    job: Job
    first_token_s: float
    total_s: float
    webhook: str = "none"

    @property
    def right(self) -> bool:
        return self.job.status == "completed" and self.job.output_text.strip() == self.question.answer


def main() -> int:
    console = Console(highlight=False)
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="vlmq-demo-"))
    try:
        asked = _show(console, folder, began)
    except ExplainedError as error:
        console.print(f"[red]{error}[/]\nWhat the stack said is in {folder}")
        return 1
    if not all(one.right and one.webhook == "verified" for one in asked):
        console.print(f"[red]not everything was right[/]; what the stack said is in {folder}")
        return 1
    shutil.rmtree(folder)
    console.print(f"[bold green]everything was right[/], in {time.monotonic() - began:.1f} s\n")
    console.print("Go on with [bold]make serve[/], and in another terminal:")
    console.print(f'  .venv/bin/vlmq submit {PICTURES}/scene.png "Describe the image."')
    return 0


def _show(console: Console, folder: Path, began: float) -> list[Asked]:
    url = f"http://127.0.0.1:{free_port('127.0.0.1', 0)}"
    console.rule("[bold]vlmq demo")
    console.print("starting Redis, the API, a worker with the model, and a worker for webhooks …")
    with _stack(folder, url) as process, Client(url) as client:
        _wait_until_ready(client, process, folder / "serve.log")
        console.print(f"ready on {url} after {time.monotonic() - began:.1f} s\n")
        settings = with_own_secret(Settings(data_dir=folder / "data", _env_file=None))
        with Receiver(tenant_secrets(settings, "default")[0]) as receiver:
            asked = [_ask(console, client, receiver.url, question) for question in _questions(console)]
            for one in asked:
                one.webhook = receiver.wait_for(one.job.id, WEBHOOK_S)
    _print_summary(console, asked)
    return asked


def _questions(console: Console) -> Iterator[Question]:
    """Drawn at random from what was kept out of the model's training; the same ones each time."""
    PICTURES.mkdir(exist_ok=True)
    scene = random_scene(Random(SEED), things=3, unseen=True)
    image = PICTURES / "scene.png"
    scene.draw().save(image)
    draw_on_terminal(console, [scene.draw(64)])
    yield Question("image", image, "Describe the image.", describe(scene.things))
    clip = random_clip(Random(SEED), "move", unseen=True)
    video = PICTURES / "clip.mp4"
    write_mp4(clip.frames(FRAMES), 4, video)
    draw_on_terminal(console, [clip.at(moment).draw(64) for moment in (0.0, 0.33, 0.67, 1.0)])
    yield Question("video", video, "What happens in the video?", f"a {clip.things[0].name} moves {clip.direction}.")


def _ask(console: Console, client: Client, webhook_url: str, question: Question) -> Asked:
    console.print(f"[bold]{question.text}[/]  [dim]({question.file.name})[/]")
    started = time.monotonic()
    part = {"type": question.kind, "file_id": client.upload(question.file)}
    job = client.submit(
        [{"role": "user", "content": [part, {"type": "text", "text": question.text}]}],
        model=BUNDLED_MODEL,
        generation={"do_sample": False},
        webhook={"url": webhook_url},
    )
    first_token_s = 0.0
    for event in client.events(job.id):
        if event.type == "delta":
            first_token_s = first_token_s or time.monotonic() - started
            console.print(event.data["text"], end="", style="cyan", markup=False)
    total_s = time.monotonic() - started
    asked = Asked(question, client.get(job.id), first_token_s, total_s)
    right = "[green]✓[/]" if asked.right else f"[red]✗ the right answer is: {question.answer}[/]"
    console.print(f"  {right}\n")
    return asked


def _print_summary(console: Console, asked: list[Asked]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("", "answer", "tokens", "first token", "in all", "webhook"):
        table.add_column(name, justify="right" if name in ("tokens", "first token", "in all") else "left")
    for one in asked:
        tokens = (one.job.raw.get("usage") or {}).get("completion_tokens", "?")
        answer = "[green]right[/]" if one.right else f"[red]{one.job.status}, wrong[/]"
        webhook = f"[green]{one.webhook}[/]" if one.webhook == "verified" else f"[red]{one.webhook}[/]"
        times = (f"{one.first_token_s * 1000:.0f} ms", f"{one.total_s * 1000:.0f} ms")
        table.add_row(one.question.kind, answer, str(tokens), *times, webhook)
    console.print(table)


@contextmanager
def _stack(folder: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A running `vlmq serve`, ended with the signal of Ctrl-C as a user would end it."""
    port = url.rpartition(":")[2]
    arguments = ["--model", BUNDLED_MODEL, "--port", port, "--data-dir", str(folder / "data"), "--allow-private-urls"]
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "vlmq", "serve", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=partial(die_with_parent, getpid()),  # noqa: PLW1509 - no thread runs yet
        )
    try:
        yield process
        process.send_signal(signal.SIGINT)
        if process.wait(STOP_S) != 0:
            raise ExplainedError(f"the stack ended with status {process.returncode}")
    except subprocess.TimeoutExpired:
        raise ExplainedError(f"the stack did not end within {STOP_S:g} s") from None
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(client: Client, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up_at = time.monotonic() + START_S
    while not client.ready():
        if process.poll() is not None:
            raise ExplainedError(f"the stack did not start:\n{log.read_text(errors='replace').strip()}")
        if time.monotonic() > give_up_at:
            raise ExplainedError(f"the stack was not ready after {START_S:g} s")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
