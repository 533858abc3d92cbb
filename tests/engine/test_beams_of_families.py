"""Beams and several texts share a prompt's media in every family, as they do in plain transformers."""

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoint import load_checkpoint
from engine.generate_engine import GenerateEngine
from engine.types import CheckpointSettings, GenerationParameters, Picture, PromptRequest, VideoClip
from tests.engine.families import FAMILIES, save_family
from tests.engine.families.reference import CHATS, count, plain_inputs
from tests.engine.listening import finish


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_takes_beams_and_several_texts(
    name: str, tmp_path: Path, pictures: list[Picture], clip: VideoClip
) -> None:
    save_family(name, tmp_path)
    checkpoint = load_checkpoint(CheckpointSettings(str(tmp_path), device="cpu"))
    engine = GenerateEngine(checkpoint)
    for case in FAMILIES[name].cases:
        chat = CHATS[case]
        images, clips = pictures[: count(chat, "image")], [clip] * count(chat, "video")
        inputs = plain_inputs(tmp_path, chat, images, clips)
        for named in ({"num_beams": 3, "do_sample": False}, {"num_return_sequences": 2, "do_sample": True}):
            prompt = PromptRequest(chat, images, clips)
            end = finish(engine, prompt, GenerationParameters(max_new_tokens=8, seed=4, **named))  # type: ignore[arg-type]
            torch.manual_seed(4)
            rows = checkpoint.model.generate(**inputs, max_new_tokens=8, **named)[:, inputs["input_ids"].shape[1] :]
            texts = checkpoint.tokenizer.decode_batch(
                [without_padding(row, checkpoint.model.generation_config) for row in rows.tolist()],
                skip_special_tokens=True,
            )
            assert [output.text for output in end.outputs] == [text.rstrip("\ufffd") for text in texts], case
    engine.close()


def without_padding(row: list[int], config: Any) -> list[int]:
    """Texts that end before the longest one are filled up, with what may be a token of text in these small models."""
    ends = {config.eos_token_id} if isinstance(config.eos_token_id, int) else set(config.eos_token_id or ())
    return row[: next((place for place, token in enumerate(row) if token in ends), len(row))]
