import json
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.checkpoint import load_checkpoint
from engine.generate_engine import GenerateEngine
from engine.load import load_engine
from engine.types import CheckpointSettings, GenerationParameters
from tests.engine.listening import ask
from tests.engine.loading import failure
from vlmq.config import BUNDLED_CHECKPOINT
from vlmq.errors import ErrorCode, VlmqError


@pytest.fixture
def copied(random_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(random_folder, tmp_path / "my-vlm")


def test_a_loaded_checkpoint_describes_itself(engine: GenerateEngine) -> None:
    description = engine.description
    assert description.architecture == "Qwen3VLForConditionalGeneration"
    assert (description.device, description.dtype, description.max_context) == ("cpu", "float32", 8192)
    assert (description.attn_implementation, description.attn_reason) == ("sdpa", "flash-attn needs a CUDA device")
    assert description.modalities == {"text", "image", "video"}
    assert description.revision.startswith("local-")
    weights = load_file(BUNDLED_CHECKPOINT / "model.safetensors")
    assert description.weight_bytes >= sum(tensor.nbytes for tensor in weights.values())


def test_settings_narrow_what_a_checkpoint_offers(random_folder: Path) -> None:
    settings = CheckpointSettings(
        str(random_folder),
        device="cpu",
        dtype="bfloat16",
        attn_implementation="eager",
        max_model_len=100,
        modalities=frozenset({"text"}),
    )
    description = load_checkpoint(settings).description
    assert (description.dtype, description.attn_implementation, description.max_context) == ("bfloat16", "eager", 100)
    assert description.attn_reason == "set by name"
    assert description.modalities == {"text"}


def test_half_precision_weights_run_in_single_precision_on_a_cpu(copied: Path) -> None:
    weights = {name: tensor.bfloat16() for name, tensor in load_file(copied / "model.safetensors").items()}
    save_file(weights, copied / "model.safetensors", {"format": "pt"})
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    assert load_checkpoint(CheckpointSettings(str(copied), device="cpu")).description.dtype == "float32"


def test_an_engine_without_pictures_refuses_them(random_folder: Path) -> None:
    engine = load_engine(CheckpointSettings(str(random_folder), device="cpu", modalities=frozenset({"text"})))
    prompt = ask("x")
    prompt.messages[0]["content"] = [{"type": "image"}]
    with pytest.raises(VlmqError) as caught:
        engine.prepare("any", prompt, GenerationParameters())
    assert (caught.value.code, caught.value.param) == (ErrorCode.UNSUPPORTED_MODALITY, "messages.0.content.0")
    engine.close()


def test_the_revision_is_that_of_the_bytes(random_folder: Path, copied: Path) -> None:
    def revision(folder: Path) -> str:
        return load_checkpoint(CheckpointSettings(str(folder), device="cpu")).description.revision

    first = revision(random_folder)
    assert revision(copied) == first
    weights = load_file(copied / "model.safetensors")
    save_file({name: tensor + 1e-3 for name, tensor in weights.items()}, copied / "model.safetensors", {"format": "pt"})
    trained = revision(copied)
    (copied / "chat_template.jinja").write_text("{{ messages }}")
    assert len({first, trained, revision(copied)}) == 3


def test_a_missing_folder_is_named_without_its_path() -> None:
    message = failure(CheckpointSettings("/srv/secret/my-vlm"))
    assert message == "The checkpoint my-vlm is not a directory on this machine"


def test_a_repository_that_cannot_be_reached_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "hub cannot be reached" in failure(CheckpointSettings("vlmq-tests/no-such-model"))


def test_a_model_that_takes_no_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    assert "no image-text-to-text model" in failure(CheckpointSettings(str(tmp_path)))


def test_a_folder_without_weights_is_refused(copied: Path) -> None:
    (copied / "model.safetensors").unlink()
    assert failure(CheckpointSettings(str(copied))) == "The checkpoint my-vlm has no weights in safetensors files"


def test_pickled_weights_are_not_read(copied: Path) -> None:
    torch.save(load_file(copied / "model.safetensors"), copied / "pytorch_model.bin")
    (copied / "model.safetensors").unlink()
    assert failure(CheckpointSettings(str(copied))) == "The checkpoint my-vlm has no weights in safetensors files"


def test_damaged_weights_are_refused(copied: Path) -> None:
    path = copied / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    assert "damaged" in failure(CheckpointSettings(str(copied)))


def test_weights_that_are_missing_are_not_made_up(copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    lost = next(name for name in sorted(weights) if "q_proj" in name)
    del weights[lost]
    save_file(weights, copied / "model.safetensors", {"format": "pt"})
    assert f"lacks 1 of its weights, {lost} first" in failure(CheckpointSettings(str(copied)))


def test_a_folder_without_a_processor_is_refused(copied: Path) -> None:
    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"):
        (copied / name).unlink(missing_ok=True)
    failure(CheckpointSettings(str(copied)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_by_name_is_refused_without_a_gpu(random_folder: Path) -> None:
    assert "no CUDA device" in failure(CheckpointSettings(str(random_folder), device="cuda"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_cpu_is_taken_with_one_line_in_the_log(
    random_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert load_checkpoint(CheckpointSettings(str(random_folder))).description.device == "cpu"
    assert [record.levelname for record in caplog.records if "CPU" in record.message] == ["WARNING"]


def test_an_unknown_attention_is_refused(random_folder: Path) -> None:
    settings = CheckpointSettings(str(random_folder), device="cpu", attn_implementation="my-attention")
    assert "attention implementation" in failure(settings)
