"""Every family in docs/models.md keeps its mind with its weights in eight bits."""

from pathlib import Path

import pytest
import torch
from optimum.quanto import QLinear

from engine.checkpoint import load_checkpoint
from engine.generate_engine import GenerateEngine
from engine.types import CheckpointSettings, GenerationParameters, Picture, PromptRequest
from tests.engine.families import FAMILIES, save_family
from tests.engine.families.reference import CHATS, plain_inputs, plain_tokens
from tests.engine.listening import end_of, run

PARAMETERS = GenerationParameters(max_new_tokens=8, do_sample=False)


@pytest.mark.parametrize("name", FAMILIES)
def test_eight_bits_hardly_change_what_a_family_sees(name: str, tmp_path: Path, pictures: list[Picture]) -> None:
    save_family(name, tmp_path)
    full = load_checkpoint(CheckpointSettings(str(tmp_path), device="cpu"))
    small = load_checkpoint(CheckpointSettings(str(tmp_path), device="cpu", quantization="quanto-int8"))
    assert sum(isinstance(module, QLinear) for module in small.model.modules()) >= 20

    inputs = plain_inputs(tmp_path, CHATS["image"], pictures[:1], [])
    with torch.inference_mode():
        logits = [model(**inputs).logits[0, -1] for model in (full.model, small.model)]
    assert not torch.equal(logits[0], logits[1])
    assert torch.nn.functional.cosine_similarity(logits[0], logits[1], dim=0) > 0.98

    engine = GenerateEngine(small)
    try:
        end = end_of(run(engine, PromptRequest(CHATS["image"], pictures[:1]), PARAMETERS), "only")
    finally:
        engine.close()
    expected = plain_tokens(small.model, inputs, 8)
    assert end.completion_tokens == len(expected)
    assert end.text == full.tokenizer.decode(expected, skip_special_tokens=True).rstrip("\ufffd")
