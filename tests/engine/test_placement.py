"""Which device, attention and map a checkpoint gets, on machines with GPUs that are told of here."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers.utils.import_utils import is_flash_attn_2_available

import engine.placement
from engine.checkpoint import load_checkpoint
from engine.generate_engine import GenerateEngine
from engine.placement import Placement, place
from engine.types import CheckpointSettings, GenerationParameters, Picture, PromptRequest
from tests.engine.listening import finish
from vlmq.config import BUNDLED_CHECKPOINT
from vlmq.errors import VlmqError


class Flashy:
    _supports_flash_attn = True


class Plain:
    _supports_flash_attn = False


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The compute capabilities of the machine's GPUs; flash-attn is installed."""
    capabilities = [(9, 0)]
    monkeypatch.setattr("engine.placement._cuda_problem", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number=0: capabilities[number])
    monkeypatch.setattr("engine.placement.is_flash_attn_2_available", lambda: True)
    monkeypatch.setitem(sys.modules, "flash_attn", ModuleType("flash_attn"))
    return capabilities


def placed(model_class: type[Any] = Flashy, **values: Any) -> Placement:
    return place(CheckpointSettings("any", **values), torch.bfloat16, model_class)


def test_flash_attention_is_taken_where_it_is_installed_and_can_run(gpus: list[tuple[int, int]]) -> None:
    found = placed()
    assert (found.device, found.dtype, found.attn_implementation) == ("cuda", torch.bfloat16, "flash_attention_2")
    assert found.attn_reason == "flash-attn is installed and the GPU is new enough"


def test_another_attention_that_is_set_by_name_is_taken(gpus: list[tuple[int, int]]) -> None:
    assert placed(attn_implementation="sdpa").attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("hindrance", "reason"),
    [
        ("old", "flash-attn needs a GPU of compute capability 8.0 or newer"),
        ("architecture", "the architecture does not work with flash-attn"),
        ("dtype", "flash-attn needs bfloat16 or float16"),
        ("absent", "the flash-attn package is not installed"),
        ("broken", "the flash-attn package was built for another torch, and cannot be imported"),
        ("cpu", "flash-attn needs a CUDA device"),
    ],
)
def test_where_flash_attention_cannot_run_another_is_taken_and_the_reason_told(
    gpus: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch, hindrance: str, reason: str
) -> None:
    values: dict[str, Any] = {}
    if hindrance == "old":
        gpus.append((7, 5))  # the oldest counts
    elif hindrance == "architecture":
        values["model_class"] = Plain
    elif hindrance == "dtype":
        values["dtype"] = "float32"
    elif hindrance == "absent":
        monkeypatch.setattr("engine.placement.is_flash_attn_2_available", lambda: False)
    elif hindrance == "broken":
        monkeypatch.setitem(sys.modules, "flash_attn", None)
    else:
        values["device"] = "cpu"
    found = placed(**values)
    assert (found.attn_implementation, found.attn_reason) == (None, reason)
    with pytest.raises(VlmqError) as refusal:
        placed(**values, attn_implementation="flash_attention_2")
    assert refusal.value.message == f"The attention is set to flash_attention_2, but {reason}"


def test_a_map_may_name_the_gpus_that_are_there(gpus: list[tuple[int, int]]) -> None:
    gpus.append((9, 0))
    assert placed(device_map={"model.visual": 0, "": 1}).device_map == {"model.visual": 0, "": 1}
    assert placed(device_map="balanced").device_map == "balanced"
    with pytest.raises(VlmqError, match="names GPU 2, but this machine has 2, counted from 0"):
        placed(device_map={"": 2})


def test_a_map_for_gpus_is_refused_without_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.placement, "_cuda_problem", lambda: "no CUDA device can be used here")
    with pytest.raises(VlmqError, match="names GPU 0, but this machine has 0"):
        placed(device_map={"": 0})


@pytest.mark.parametrize("device_map", ["auto", {"": "cpu"}])
def test_a_mapped_checkpoint_answers_as_one_that_is_not(
    random_folder: Path, random_engine: GenerateEngine, pictures: list[Picture], device_map: Any
) -> None:
    if torch.cuda.is_available() and device_map == "auto":
        device_map = {"": "cpu"}
    mapped = GenerateEngine(load_checkpoint(CheckpointSettings(str(random_folder), device_map=device_map)))
    content = [{"type": "image"}, {"type": "text", "text": "x"}]
    prompt = PromptRequest([{"role": "user", "content": content}], pictures[:1])
    parameters = GenerationParameters(max_new_tokens=8, do_sample=False)
    try:
        assert mapped.description.device == "cpu"
        assert finish(mapped, prompt, parameters).text == finish(random_engine, prompt, parameters).text
    finally:
        mapped.close()


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available() or not is_flash_attn_2_available(),
    reason="needs a GPU and flash-attn",
)
def test_flash_attention_answers_as_sdpa_does(pictures: list[Picture]) -> None:
    content = [{"type": "image"}, {"type": "text", "text": "What is in the image?"}]
    prompt = PromptRequest([{"role": "user", "content": content}], pictures[:1])
    texts = []
    for attention in ("auto", "sdpa"):
        settings = CheckpointSettings(str(BUNDLED_CHECKPOINT), device="cuda", attn_implementation=attention)
        running = GenerateEngine(load_checkpoint(settings))
        wanted = "flash_attention_2" if attention == "auto" else "sdpa"
        assert running.description.attn_implementation == wanted
        texts.append(finish(running, prompt, GenerationParameters(do_sample=False)).text)
        running.close()
    assert texts[0] == texts[1]
