"""LoRA adapters: added to the weights, or refused in one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from engine.checkpoint import load_checkpoint
from engine.generate_engine import GenerateEngine
from engine.types import CheckpointSettings, GenerationParameters
from tests.engine.listening import ask, finish
from tests.engine.loading import failure

GREEDY = GenerationParameters(max_new_tokens=12, do_sample=False)


@pytest.fixture(scope="module")
def adapter(random_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRA weights, far from zero, for the language model's attention."""
    folder = tmp_path_factory.mktemp("adapter") / "my-lora"
    auto_model: Any = AutoModelForImageTextToText
    config = LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"])
    made = get_peft_model(auto_model.from_pretrained(random_folder), config)
    torch.manual_seed(1)
    for name, parameter in made.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    made.save_pretrained(str(folder))
    return folder


@pytest.fixture
def copied(adapter: Path, tmp_path: Path) -> Path:
    return shutil.copytree(adapter, tmp_path / "my-lora")


def settings(folder: Path, **values: Any) -> CheckpointSettings:
    return CheckpointSettings(str(folder), device="cpu", **values)


def refusal(random_folder: Path, adapter: str) -> str:
    return failure(settings(random_folder, adapter=adapter))


def test_an_adapter_answers_as_the_model_that_it_was_merged_into(random_folder: Path, adapter: Path) -> None:
    auto_model: Any = AutoModelForImageTextToText
    merged = PeftModel.from_pretrained(auto_model.from_pretrained(random_folder), adapter).merge_and_unload()
    checkpoint = load_checkpoint(settings(random_folder, adapter=str(adapter)))
    with torch.inference_mode():
        ids = torch.tensor([[5, 6, 7, 8]])
        plain = load_checkpoint(settings(random_folder)).model(input_ids=ids).logits
        adapted = checkpoint.model(input_ids=ids).logits
        assert torch.allclose(adapted, merged.eval()(input_ids=ids).logits, atol=1e-5)
        assert not torch.allclose(adapted, plain, atol=1e-2)
    assert checkpoint.description.adapter == "my-lora"
    assert checkpoint.description.architecture == "Qwen3VLForConditionalGeneration"
    assert checkpoint.description.weight_bytes == checkpoint.description.weight_bytes_before
    engine = GenerateEngine(checkpoint)
    assert finish(engine, ask("x"), GREEDY).completion_tokens > 0
    engine.close()


def test_beside_quantized_weights_the_adapter_keeps_its_own_numbers(random_folder: Path, adapter: Path) -> None:
    full = load_checkpoint(settings(random_folder, adapter=str(adapter)))
    small = load_checkpoint(settings(random_folder, adapter=str(adapter), quantization="quanto-int8"))
    bare = load_checkpoint(settings(random_folder, quantization="quanto-int8"))
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        logits = [checkpoint.model(input_ids=ids).logits.flatten() for checkpoint in (full, small, bare)]
    near, far = (torch.nn.functional.cosine_similarity(logits[0], other, dim=0) for other in logits[1:])
    assert near > 0.98 > far
    in_file = sum(tensor.nbytes for tensor in load_file(adapter / "adapter_model.safetensors").values())
    assert small.description.weight_bytes == bare.description.weight_bytes + in_file
    assert small.description.architecture == full.description.architecture
    engine = GenerateEngine(small)
    assert finish(engine, ask("x"), GREEDY).completion_tokens > 0
    engine.close()


def test_an_adapter_of_another_model_is_refused(random_folder: Path, copied: Path) -> None:
    weights = load_file(copied / "adapter_model.safetensors")
    wide = {name: tensor.repeat(1, 2) if "lora_A" in name else tensor for name, tensor in weights.items()}
    save_file(wide, copied / "adapter_model.safetensors")
    assert refusal(random_folder, str(copied)).startswith("The adapter my-lora is made for another model")


def test_an_adapter_whose_modules_the_model_does_not_have_is_refused(random_folder: Path, copied: Path) -> None:
    config = json.loads((copied / "adapter_config.json").read_text())
    (copied / "adapter_config.json").write_text(json.dumps(config | {"target_modules": ["c_attn"]}))
    assert "is made for another model" in refusal(random_folder, str(copied))


def test_an_adapter_with_weights_left_over_or_missing_is_refused(random_folder: Path, copied: Path) -> None:
    weights = load_file(copied / "adapter_model.safetensors")
    lost = min(weights)
    save_file({name: tensor for name, tensor in weights.items() if name != lost}, copied / "adapter_model.safetensors")
    assert "does not fit this one" in refusal(random_folder, str(copied))
    extra = lost.replace("layers.0", "layers.99")
    save_file(weights | {extra: weights[lost].clone()}, copied / "adapter_model.safetensors")
    assert f"{extra} does not fit this one" in refusal(random_folder, str(copied))


def test_pickled_damaged_and_infinite_weights_are_refused(random_folder: Path, copied: Path) -> None:
    path = copied / "adapter_model.safetensors"
    weights = load_file(path)
    save_file({name: tensor / 0 for name, tensor in weights.items()}, path)
    assert "holds weights that are no numbers" in refusal(random_folder, str(copied))
    path.write_bytes(path.read_bytes()[:-1000])
    assert "has a damaged adapter_model.safetensors" in refusal(random_folder, str(copied))
    path.unlink()
    torch.save(weights, copied / "adapter_model.bin")
    assert "pickled weights are not read" in refusal(random_folder, str(copied))


def test_what_is_no_lora_adapter_is_refused(random_folder: Path, copied: Path) -> None:
    config = copied / "adapter_config.json"
    config.write_text('{"peft_type": "PREFIX_TUNING"}')
    assert "is of the kind PREFIX_TUNING; only LORA is taken" in refusal(random_folder, str(copied))
    config.write_text("{")
    assert "cannot be read" in refusal(random_folder, str(copied))
    config.unlink()
    assert "is no adapter" in refusal(random_folder, str(copied))
    assert "is not a directory on this machine" in refusal(random_folder, "/srv/none/my-lora")


def test_without_peft_it_says_how_to_install_it(
    random_folder: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.adapter.find_spec", lambda _name: None)
    assert "pip install peft" in refusal(random_folder, str(adapter))
