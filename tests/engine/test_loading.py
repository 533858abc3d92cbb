"""Loading from a hub, its progress, and the memory that it is refused for."""

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from engine.checkpoint import load_checkpoint
from engine.load import load_engine
from engine.load_failure import explain
from engine.memory import _left_in_container
from engine.types import CheckpointSettings, LoadingStage
from tests.engine.families import save_family
from tests.engine.loading import failure
from tests.hub import COMMIT, Hub
from vlmq.config import BUNDLED_CHECKPOINT


@pytest.fixture
def hub(random_folder: Path, tmp_path: Path) -> Iterator[Hub]:
    text_model = tmp_path / "text"
    text_model.mkdir()
    (text_model / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    (text_model / "model.safetensors").write_bytes(bytes(100_000))
    hub = Hub({"org/vlm": random_folder, "org/text": text_model})
    with hub.in_place_of_the_real_one(tmp_path / "cache"):
        yield hub


def test_a_repository_is_downloaded_and_loaded_with_its_progress_told(hub: Hub) -> None:
    told: list[tuple[LoadingStage, float | None]] = []
    settings = CheckpointSettings("org/vlm", device="cpu")
    engine = load_engine(settings, on_progress=lambda stage, fraction: told.append((stage, fraction)))
    engine.close()
    assert engine.description.revision == COMMIT
    assert list(dict.fromkeys(stage for stage, _ in told)) == ["downloading", "loading", "warming_up"]
    for stage in ("downloading", "loading"):
        fractions = [fraction for name, fraction in told if name == stage and fraction is not None]
        assert fractions == sorted(fractions)
        assert (fractions[0], fractions[-1]) == (0.0, 1.0)
        assert len(fractions) > 10


def test_a_folder_is_not_said_to_be_downloaded() -> None:
    told: list[LoadingStage] = []
    settings = CheckpointSettings(str(BUNDLED_CHECKPOINT), device="cpu")
    load_engine(settings, on_progress=lambda stage, _fraction: told.append(stage)).close()
    assert list(dict.fromkeys(told)) == ["loading", "warming_up"]


def test_a_model_of_another_kind_is_refused_before_its_weights_are_downloaded(hub: Hub) -> None:
    message = failure(CheckpointSettings("org/text", device="cpu"))
    assert message == "The checkpoint org/text is no image-text-to-text model (its model type is llama)"
    assert "model.safetensors" not in hub.sent


def test_what_the_hub_refuses_is_said_in_one_line(hub: Hub) -> None:
    assert failure(CheckpointSettings("org/none")).startswith("The checkpoint org/none is not on the hub, or is")
    assert failure(CheckpointSettings("org/vlm", revision="v9")) == "The checkpoint org/vlm has no such revision"
    hub.gated.add("org/vlm")
    assert failure(CheckpointSettings("org/vlm")).startswith("The checkpoint org/vlm is gated: ask for access")
    assert load_checkpoint(CheckpointSettings("org/vlm", device="cpu", token=hub.token)).description.revision == COMMIT


def test_weights_that_do_not_fit_into_the_memory_are_refused_before_they_are_read(
    random_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.checkpoint.free_bytes", lambda _device: 5_000_000)
    message = failure(CheckpointSettings(str(random_folder), device="cpu"))
    assert "bytes of memory for its weights, and this machine has 5,000,000 free; name a smaller dtype" in message
    assert load_checkpoint(CheckpointSettings(str(random_folder), device="cpu", quantization="quanto-int8"))
    monkeypatch.setattr("engine.checkpoint.free_bytes", lambda _device: 1_000_000)
    message = failure(CheckpointSettings(str(random_folder), device="cpu", quantization="quanto-int8"))
    assert message.endswith("it takes a larger device")


def test_a_container_has_what_its_limit_leaves(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\nfile 200\n")
    assert _left_in_container(tmp_path) == 500
    (tmp_path / "memory.max").write_text("max\n")
    assert _left_in_container(tmp_path) > 10**15
    assert _left_in_container(tmp_path / "none") > 10**15


def test_without_warm_up_an_engine_is_ready_at_once(random_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages: list[str] = []

    def refuse(_self: object) -> None:
        raise AssertionError("it warmed up")

    monkeypatch.setattr("engine.generate_engine.GenerateEngine._warm_up", refuse)
    settings = CheckpointSettings(str(random_folder), device="cpu", warm_up=False)
    load_engine(settings, on_progress=lambda stage, _fraction: stages.append(stage)).close()
    assert "warming_up" not in stages


def test_a_warm_up_leaves_out_what_the_model_does_not_take(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_family("paligemma", tmp_path)
    with caplog.at_level(logging.INFO):
        load_engine(CheckpointSettings(str(tmp_path), device="cpu")).close()
    assert "a warm-up generation is left out: This model takes no text alone; send an image with it" in caplog.messages
    ours = [record for record in caplog.records if record.name.startswith("engine")]
    assert [record.levelname for record in ours if record.exc_info or record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "has a configuration file that is not JSON"),
        ('{"model_type": "mind-2000"}', "is of a type that this transformers does not know"),
        (None, "has no config.json"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_said_so(
    random_folder: Path, tmp_path: Path, content: str | None, told: str
) -> None:
    folder = shutil.copytree(random_folder, tmp_path / "my-vlm")
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_text(content)
    assert failure(CheckpointSettings(str(folder), device="cpu")).startswith(f"The checkpoint my-vlm {told}")


def test_weights_of_other_shapes_than_the_configuration_says_are_refused(random_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(random_folder, tmp_path / "my-vlm")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["intermediate_size"] *= 2
    (folder / "config.json").write_text(json.dumps(config))
    assert "of other shapes than its config.json says" in failure(CheckpointSettings(str(folder), device="cpu"))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "does not fit into the memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "does not fit into the memory"),
        (OSError(28, "No space left on device"), "the disk is full"),
        (PermissionError(13, "Permission denied"), "has files that this user may not read"),
        (ValueError("a device_map that contains a CPU or disk device"), "quantized weights cannot stay on the CPU"),
    ],
)
def test_what_ends_a_loading_is_put_in_words(error: Exception, told: str) -> None:
    wrapped = RuntimeError("while loading")
    wrapped.__cause__ = error
    assert told in explain(wrapped)
