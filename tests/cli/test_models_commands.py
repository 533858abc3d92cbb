"""`vlmq models` and `vlmq doctor --model`, as processes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from tests.cli.test_command_line import run
from tests.hub import COMMIT, Hub
from vlmq.config import BUNDLED_CHECKPOINT

QUANTIZED = json.dumps(
    {"small": {"checkpoint": str(BUNDLED_CHECKPOINT), "device": "cpu", "quantization": "quanto-int8"}}
)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    folder = tmp_path / "vlm"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(1_000_000))
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text("{}")
    with Hub({"org/vlm": folder, "org/lora": folder, "org/bare": bare}).running() as hub:
        yield hub


def pull(hub: Hub, tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run("models", "pull", *arguments, HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "hf"), **environment)


def test_pull_downloads_a_repository_once(hub: Hub, tmp_path: Path) -> None:
    first = pull(hub, tmp_path, "org/vlm")
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout == f"org/vlm is downloaded, 1,000,002 bytes: revision {COMMIT}\n"
    again = pull(hub, tmp_path, "org/vlm")
    assert again.stdout == f"org/vlm is there already: revision {COMMIT}\n"
    assert hub.sent["model.safetensors"] == 1_000_000


def test_pull_fetches_what_a_served_model_names_its_adapter_too(hub: Hub, tmp_path: Path) -> None:
    models = '{"vlm": {"checkpoint": "org/vlm", "revision": "main", "adapter": "org/lora"}}'
    done = pull(hub, tmp_path, "vlm", VLMQ_MODELS=models)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["org/vlm", "org/lora"]
    refused = pull(hub, tmp_path, "vlm", "--revision", "v2", VLMQ_MODELS=models)
    assert refused.stderr == "the settings pin vlm to the revision main; leave out --revision\n"


def test_pull_says_in_one_line_what_is_wrong(hub: Hub, tmp_path: Path) -> None:
    hub.gated.add("org/lora")
    for name, said in (
        ("org/none", "org/none is not on the hub, or is private"),
        ("org/lora", "org/lora is gated: ask for access on its page at the hub, and set HF_TOKEN"),
        ("org/bare", "org/bare has no weights in safetensors files"),
        ("nonsense", "'nonsense' is neither a model of the settings (tiny-vlm), nor a folder"),
    ):
        done = pull(hub, tmp_path, name)
        assert done.returncode == 1
        assert done.stderr.startswith(said)
        assert done.stderr.count("\n") == 1
    assert pull(hub, tmp_path, "org/lora", HF_TOKEN=hub.token).returncode == 0


def test_pull_of_a_folder_has_nothing_to_do() -> None:
    done = run("models", "pull", "tiny-vlm")
    assert done.returncode == 0
    assert "is a folder on this machine; there is nothing to download" in done.stdout


def test_pull_loads_no_torch() -> None:
    code = (
        "import sys, vlmq.hub, vlmq.cli_models, vlmq.cli_progress\n"
        "print([name for name in ('torch', 'transformers', 'flask', 'sqlalchemy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_list_shows_how_every_model_is(httpserver: HTTPServer) -> None:
    rows = [
        {"id": "a", "state": "ready", "checkpoint": "org/a", "quantization": "quanto-int8"}
        | {"details": {"weight_bytes": 1234567, "device": "cpu", "quantization": "quanto-int8"}},
        {"id": "b", "state": "loading", "stage": "downloading", "progress": 0.42, "checkpoint": "org/b"},
        {"id": "c", "state": "failed", "error": "it is gated\x1b[2J", "checkpoint": "org/c", "details": None},
    ]
    httpserver.expect_request("/v1/models").respond_with_json({"object": "list", "data": rows})
    done = run("models", "list", url=httpserver.url_for(""), COLUMNS="160")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[1].split() == ["a", "ready", "org/a", "quanto-int8", "1,234,567", "cpu"]
    assert "downloading 42%" in lines[2]
    assert "failed: it is gated" in lines[3]
    assert "\x1b" not in done.stdout
    as_json = run("models", "list", "--json", url=httpserver.url_for(""))
    assert json.loads(as_json.stdout)[1]["progress"] == 0.42


def test_doctor_loads_a_model_and_tells_its_bytes_before_and_after() -> None:
    done = run("doctor", "--model", "small", "--json", VLMQ_MODELS=QUANTIZED)
    assert done.returncode == 0, done.stderr
    told = {found["subject"]: found for found in json.loads(done.stdout)}
    assert "6,721,600 bytes before quanto-int8, 2,117,096 after: 69% less" in told["weights"]["message"]
    assert told["attention"]["advice"] == "flash-attn needs a CUDA device"
    assert told["device"]["message"] == "cpu, float32"
    assert told["context"]["message"] == "8,192 tokens"
    assert told["takes"]["message"] == "image, text, video"
    assert "Qwen3VLForConditionalGeneration" in told["model small"]["message"]


def test_doctor_takes_the_file_with_the_models(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text('[small]\ncheckpoint = "nowhere/at-all"\nengine = "scripted"\n')
    done = run("doctor", "--model", "small", "--models-file", str(file), "--json")
    assert [finding["subject"] for finding in json.loads(done.stdout)][:1] == ["model small"]


def test_doctor_says_why_a_model_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    done = run("doctor", "--model", str(tmp_path), "--json")
    assert done.returncode == 1
    (found,) = json.loads(done.stdout)
    assert found["level"] == "fail"
    assert "is no image-text-to-text model (its model type is llama)" in found["message"]
    assert "Traceback" not in done.stderr
