"""`vlmq serve` from outside: real processes, real signals, the bundled model."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from checkpoints.scenes import random_scene
from tests.journeys.stack import Stack
from tests.processes import until
from vlmq.client import Client
from vlmq.config import BUNDLED_CHECKPOINT, Settings
from vlmq.data_dir import with_own_secret
from vlmq.demo_receiver import Receiver
from vlmq.signing import tenant_secrets

SCRIPTED = {"scripted": {"checkpoint": "scripted", "engine": "scripted"}}
TINY = {"tiny-vlm": {"checkpoint": str(BUNDLED_CHECKPOINT), "device": "cpu"}}


def user(*parts: str | dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]}]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("serve") / "data", json.dumps(SCRIPTED | TINY)).until_killed() as stack:
        yield stack


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with stack.client() as client:
        yield client


def test_what_it_says_names_the_address_the_models_their_device_and_the_docs(stack: Stack) -> None:
    assert stack.url in stack.output
    assert "tiny-vlm (on cpu" in stack.output
    assert f"{stack.url}/docs" in stack.output


def test_a_question_about_an_image_is_answered_live_and_its_webhook_is_signed(
    stack: Stack, client: Client, tmp_path: Path
) -> None:
    scene = random_scene(Random(1), things=1)
    image = tmp_path / "scene.png"
    scene.draw().save(image)
    secret = tenant_secrets(with_own_secret(Settings(data_dir=stack.folder, _env_file=None)), "default")[0]
    with Receiver(secret) as receiver:
        job = client.submit(
            user({"type": "image", "file_id": client.upload(image)}, "What is in the image?"),
            model="tiny-vlm",
            generation={"do_sample": False},
            webhook={"url": receiver.url},
        )
        events = list(client.events(job.id))
        done = client.get(job.id)
        assert done.status == "completed", done.error
        assert done.output_text == f"a {scene.things[0].name}"
        assert "".join(event.data["text"] for event in events if event.type == "delta") == done.output_text
        assert receiver.wait_for(job.id, 20) == "verified"


@pytest.mark.parametrize("part", ["api", "worker --light", "worker --model scripted", "redis"])
def test_a_part_that_is_killed_comes_back_and_jobs_run_again(stack: Stack, part: str) -> None:
    killed = stack.parts()[part]
    os.kill(killed, signal.SIGKILL)
    until(lambda: stack.parts().get(part, killed) != killed, what=f"{part} is started again")
    with stack.client() as client:
        until(client.ready, what="the service is ready again")
        job = client.submit(user("still there?"), model="scripted")
        assert client.wait(job.id, timeout_s=30).output_text == "echo: still there?"


def test_a_follower_loses_nothing_when_the_worker_is_killed_in_the_middle(stack: Stack, client: Client) -> None:
    job = client.submit(user('{"tokens": 60, "step_ms": 25}'), model="scripted")
    texts: dict[int, str] = {}
    for event in client.events(job.id):
        if event.type != "delta":
            continue
        if event.attempt == 1 and len(texts.get(1, "")) > 10 and 2 not in texts:
            os.kill(stack.parts()["worker --model scripted"], signal.SIGKILL)
            texts[2] = ""
        texts[event.attempt] = texts.get(event.attempt, "") + event.data["text"]
    done = client.get(job.id)
    assert done.status == "completed", done.error
    assert texts[max(texts)] == done.output_text == " ".join(f"w{n}" for n in range(1, 61))


def test_a_second_serve_on_the_same_folder_is_refused(stack: Stack) -> None:
    second = run_serve("--data-dir", str(stack.folder), "--port", "0")
    assert second.returncode == 1
    assert f"another `vlmq serve` (process {stack.process.pid})" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_busy_port_is_named(stack: Stack, tmp_path: Path) -> None:
    second = run_serve("--data-dir", str(tmp_path / "other"), "--port", str(stack.port))
    assert second.returncode == 1
    assert second.stderr.startswith(f"cannot listen on 127.0.0.1:{stack.port}: address already in use")


def test_a_model_that_cannot_be_loaded_ends_the_start_and_leaves_nothing_running(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    stack = Stack(tmp_path / "data", json.dumps(SCRIPTED), "--model", str(empty))
    assert stack.process.wait(90) == 1
    told = [line for line in stack.output.splitlines() if "error: " in line]
    assert len(told) == 1, told
    assert "the model could not be loaded" in told[0]
    assert "The checkpoint empty has no config.json" in told[0]
    assert "worker empty cannot run" in stack.output
    assert "Traceback" not in stack.output
    assert stack.left_running() == []


def test_ctrl_c_gives_running_jobs_back_and_a_killed_serve_leaves_nothing_running(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "data", json.dumps(SCRIPTED))
    stack.wait_until_ready()
    with stack.client() as client:
        job = client.submit(user('{"tokens": 80, "step_ms": 50}'), model="scripted")
        until(lambda: client.get(job.id).output_text != "", what="the job writes")
    assert stack.stop(signal.SIGINT) == 0
    assert stack.left_running() == []
    assert "stopped" in stack.output

    again = Stack(tmp_path / "data", json.dumps(SCRIPTED))
    again.wait_until_ready()
    with again.client() as client:
        done = client.wait(job.id, timeout_s=30)
        assert (done.status, done.raw["attempts"]) == ("completed", 1)
    again.process.kill()
    again.process.wait()
    until(lambda: again.left_running() == [], what="everything has ended with serve")


def test_a_database_and_a_redis_that_are_named_are_used(tmp_path: Path, postgres_url: str, redis_url: str) -> None:
    own = {"DATABASE_URL": postgres_url, "REDIS_URL": redis_url}
    stack = Stack(tmp_path / "data", json.dumps(SCRIPTED), environment=own)
    stack.wait_until_ready()
    assert sorted(stack.parts()) == ["api", "worker --light", "worker --model scripted"]
    with stack.client() as client:
        job = client.wait(client.submit(user("hello"), model="scripted").id)
    assert job.output_text == "echo: hello"
    assert not (tmp_path / "data" / "vlmq.db").exists()
    assert stack.stop(signal.SIGTERM) == 0
    assert stack.left_running() == []


def run_serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vlmq", "serve", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
