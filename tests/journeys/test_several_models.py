"""Several served models in one service: each with its own worker and queue, and its own settings."""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from checkpoints.scenes import random_scene
from tests.journeys.stack import Stack
from vlmq.client import Client
from vlmq.config import BUNDLED_CHECKPOINT

MODELS = f"""
[plain]
checkpoint = {json.dumps(str(BUNDLED_CHECKPOINT))}
device = "cpu"

[small]
checkpoint = {json.dumps(str(BUNDLED_CHECKPOINT))}
device = "cpu"
quantization = "quanto-int8"

[slow]
checkpoint = "scripted"
engine = "scripted"
max_in_flight = 1
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("several")
    file = folder / "models.toml"
    file.write_text(MODELS)
    variable = '{"none": {"checkpoint": "scripted", "engine": "scripted"}}'  # which the option goes before
    running = Stack(folder / "data", variable, "--models-file", str(file))
    running.wait_until_ready()
    yield running
    running.stop()


@pytest.fixture
def client(stack: Stack) -> Client:
    return stack.client()


def test_each_model_has_a_worker_of_its_own(stack: Stack, client: Client) -> None:
    assert {"worker --model plain", "worker --model small"} <= set(stack.parts())
    plain, small, _ = client.models()
    assert (plain["state"], small["state"]) == ("ready", "ready")
    assert (plain["details"]["attn_implementation"], plain["details"]["attn_reason"]) == (
        "sdpa",
        "flash-attn needs a CUDA device",
    )
    assert plain["details"]["quantization"] is None
    assert small["details"]["quantization"] == "quanto-int8"
    assert small["details"]["weight_bytes_before"] == plain["details"]["weight_bytes"]
    assert small["details"]["weight_bytes"] < plain["details"]["weight_bytes"] / 3


def test_both_answer_about_the_same_picture(client: Client, tmp_path: Path) -> None:
    scene = random_scene(Random(1), things=1)
    image = tmp_path / "scene.png"
    scene.draw().save(image)
    content = [{"type": "image", "file_id": client.upload(image)}, {"type": "text", "text": "What is in the image?"}]
    messages = [{"role": "user", "content": content}]
    jobs = [
        client.submit(messages, model=name, generation={"do_sample": False})
        for name in ("plain", "small", "small", "plain")
    ]
    for job in jobs:
        done = client.wait(job.id, timeout_s=60)
        assert done.status == "completed", done.error
        assert done.output_text == f"a {scene.things[0].name}"


def test_one_models_jobs_go_on_while_another_models_wait(client: Client) -> None:
    def submit(model: str, text: str) -> str:
        return client.submit([{"role": "user", "content": text}], model=model).id

    waiting = [submit("slow", json.dumps({"tokens": 10_000, "step_ms": 20})) for _ in range(3)]
    for name in ("plain", "small", "plain", "small"):
        assert client.wait(submit(name, "Hello"), timeout_s=60).status == "completed"
    assert [client.get(job_id).status for job_id in waiting[1:]] == ["queued", "queued"]
    for job_id in waiting:
        client.cancel(job_id)
        assert client.wait(job_id, timeout_s=60).status == "cancelled"
