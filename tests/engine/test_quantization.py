"""Weights in fewer bits: how many bytes they take, that the model keeps its mind, and what is refused."""

import shutil
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForImageTextToText

from checkpoints.scenes import random_scene
from engine.checkpoint import load_checkpoint
from engine.generate_engine import GenerateEngine
from engine.quantization import quantization
from engine.types import CheckpointSettings, GenerationParameters, PromptRequest
from engine.weights import expected_bytes, held_bytes, outline
from tests.engine.listening import finish
from vlmq.config import BUNDLED_CHECKPOINT
from vlmq.errors import ErrorCode, VlmqError

SCENES = 8
# Quanto compiles its kernels for four bits; where nothing can compile, they are refused (and tested to be, below).
COMPILED = ["quanto-int4"] if shutil.which("c++") or shutil.which("g++") or shutil.which("clang++") else []
BYTES = {"quanto-int8": 0.35, "quanto-float8": 0.35, "quanto-int4": 0.25, "bitsandbytes-8bit": 0.35}


def loaded(kind: str | None) -> GenerateEngine:
    return GenerateEngine(load_checkpoint(CheckpointSettings(str(BUNDLED_CHECKPOINT), device="cpu", quantization=kind)))


def right_answers(engine: GenerateEngine) -> int:
    random, right = Random(3), 0
    for _ in range(SCENES):
        scene = random_scene(random, things=1)
        content = [{"type": "image"}, {"type": "text", "text": "What is in the image?"}]
        prompt = PromptRequest([{"role": "user", "content": content}], [np.asarray(scene.draw())])
        right += finish(engine, prompt, GenerationParameters(do_sample=False)).text == f"a {scene.things[0].name}"
    return right


def refusal(name: str, device: str = "cpu") -> str:
    with pytest.raises(VlmqError) as caught:
        quantization(name, device, torch.float32)
    assert caught.value.code == ErrorCode.MODEL_LOAD_FAILED
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("kind", ["quanto-int8", "quanto-float8", *COMPILED, "bitsandbytes-8bit"])
def test_a_quantized_model_takes_a_fraction_of_the_bytes_and_still_sees(kind: str) -> None:
    engine = loaded(kind)
    try:
        told = engine.description
        assert told.quantization == kind
        assert told.weight_bytes < told.weight_bytes_before * BYTES[kind]
        assert right_answers(engine) == SCENES
    finally:
        engine.close()


def test_without_quantization_the_bytes_are_those_of_the_files(engine: GenerateEngine) -> None:
    told = engine.description
    in_file = sum(tensor.numel() * 4 for tensor in load_file(BUNDLED_CHECKPOINT / "model.safetensors").values())
    assert told.quantization is None
    assert told.weight_bytes == told.weight_bytes_before
    assert in_file <= told.weight_bytes < in_file * 1.001  # the buffers are made, not stored


@pytest.mark.parametrize(
    ("kind", "element_size"), [(None, None), ("quanto-int8", 1.0), *((kind, 0.5) for kind in COMPILED)]
)
def test_what_a_model_will_take_is_known_before_it_is_loaded(kind: str | None, element_size: float | None) -> None:
    config = AutoConfig.from_pretrained(BUNDLED_CHECKPOINT)
    model_class = type(AutoModelForImageTextToText.from_config(config))  # type: ignore[no-untyped-call]
    expected = expected_bytes(outline(model_class, config, torch.float32), element_size)
    settings = CheckpointSettings(str(BUNDLED_CHECKPOINT), device="cpu", quantization=kind)
    # The scales are what is not foreseen; on layers as small as these they are much.
    assert expected <= held_bytes(load_checkpoint(settings).model) < expected * 1.35


def test_the_output_layer_and_the_embeddings_keep_their_numbers() -> None:
    settings = CheckpointSettings(str(BUNDLED_CHECKPOINT), device="cpu", quantization="quanto-int8")
    model = load_checkpoint(settings).model
    plain = load_file(BUNDLED_CHECKPOINT / "model.safetensors")
    name = next(name for name in plain if "embed_tokens" in name)
    assert torch.equal(model.get_input_embeddings().weight, plain[name].float())
    assert model.get_output_embeddings().weight.dtype == torch.float32


def test_int4_without_the_tools_that_build_its_kernels_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("Ninja is required to load C++ extensions")

    monkeypatch.setattr("optimum.quanto.quantize", broken)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    message = refusal("quanto-int4")
    assert "finds no ninja and no C++ compiler; install what is missing, or take quanto-int8" in message


def test_the_ninja_that_comes_with_quanto_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ninja = tmp_path / "ninja"
    ninja.write_text("#!/bin/sh\n")
    ninja.chmod(0o755)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    quantization("quanto-int8", "cpu", torch.float32)
    assert shutil.which("ninja") == str(ninja)


def test_a_kind_that_fails_on_the_device_is_refused_before_the_weights_are_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr("optimum.quanto.quantize", broken)
    monkeypatch.setattr("engine.quantization.shutil.which", lambda program: f"/usr/bin/{program}")
    assert "does not work on this device" in refusal("quanto-float8")


def test_a_kind_that_is_not_known_is_refused_with_those_that_are() -> None:
    assert "there are quanto-int8, quanto-int4, quanto-float8, bitsandbytes-8bit" in refusal("gguf-q4")


def test_bitsandbytes_that_is_not_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.quantization.find_spec", lambda _name: None)
    assert "pip install bitsandbytes" in refusal("bitsandbytes-8bit")


def test_four_bits_of_bitsandbytes_are_for_gpus() -> None:
    assert "needs a CUDA device" in refusal("bitsandbytes-4bit")


def test_a_checkpoint_that_is_quantized_already_is_not_quantized_again(
    random_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = AutoConfig.from_pretrained

    def quantized(*arguments: Any, **options: Any) -> Any:
        config = real(*arguments, **options)
        config.quantization_config = {"quant_method": "gptq", "bits": 4}
        return config

    monkeypatch.setattr(AutoConfig, "from_pretrained", quantized)
    with pytest.raises(VlmqError, match="is quantized already; take `quantization` out"):
        load_checkpoint(CheckpointSettings(str(random_folder), device="cpu", quantization="quanto-int8"))


def test_quanto_is_imported_only_for_those_who_quantize() -> None:

    code = (
        "import sys; from engine.checkpoint import load_checkpoint; from engine.types import CheckpointSettings\n"
        f"load_checkpoint(CheckpointSettings({str(BUNDLED_CHECKPOINT)!r}, device='cpu'))\n"
        "print([name for name in ('optimum.quanto', 'bitsandbytes', 'peft') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ["quanto-int8", "bitsandbytes-8bit", "bitsandbytes-4bit"])
def test_on_a_gpu_the_device_holds_fewer_bytes_too(kind: str) -> None:
    plain = load_checkpoint(CheckpointSettings(str(BUNDLED_CHECKPOINT), device="cuda")).description
    engine = GenerateEngine(
        load_checkpoint(CheckpointSettings(str(BUNDLED_CHECKPOINT), device="cuda", quantization=kind))
    )
    try:
        assert engine.description.device_bytes is not None
        assert plain.device_bytes is not None
        assert engine.description.device_bytes < plain.device_bytes
        assert right_answers(engine) >= SCENES - 1
    finally:
        engine.close()
