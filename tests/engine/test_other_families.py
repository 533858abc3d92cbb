"""The fallback engine takes the families that transformers has, each with its own processor."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import AutoProcessor

from engine.checkpoint import load_checkpoint
from engine.generate_engine import GenerateEngine
from engine.types import CheckpointSettings, GenerationParameters, Picture, PromptRequest, Started, VideoClip
from tests.engine.families import FAMILIES, save_family
from tests.engine.listening import end_of, run
from vlmq.errors import ErrorCode, VlmqError

PARAMETERS = GenerationParameters(max_new_tokens=8, do_sample=False)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_generates_what_plain_transformers_does(
    name: str, tmp_path: Path, pictures: list[Picture], clip: VideoClip
) -> None:
    save_family(name, tmp_path)
    checkpoint = load_checkpoint(CheckpointSettings(str(tmp_path), device="cpu"))
    processor: Any = AutoProcessor.from_pretrained(tmp_path)  # type: ignore[no-untyped-call]
    engine = GenerateEngine(checkpoint)
    text = {"type": "text", "text": "What is it?"}
    videos = ["video"] if "video" in engine.description.modalities else []
    for kinds in ([], ["image"], ["image", "image"], videos):
        parts: list[dict[str, Any]] = [*({"type": kind} for kind in kinds), text]
        chat = [{"role": "user", "content": parts}]
        images, clips = pictures[: kinds.count("image")], [clip] * kinds.count("video")
        events = run(engine, PromptRequest(chat, images, clips), PARAMETERS)

        inputs = processor(
            text=[processor.apply_chat_template(chat, add_generation_prompt=True)],
            images=[[Image.fromarray(picture) for picture in images]] if images else None,
            videos=[clip.frames for clip in clips] or None,
            return_tensors="pt",
        )
        output = checkpoint.model.generate(**inputs, max_new_tokens=8, do_sample=False)
        tokens = output[0, inputs["input_ids"].shape[1] :].tolist()
        end, started = end_of(events, "only"), events[0]
        assert end.text == checkpoint.tokenizer.decode(tokens, skip_special_tokens=True).rstrip("\ufffd")
        assert end.completion_tokens == len(tokens)
        assert isinstance(started, Started)
        assert started.prompt_tokens == inputs["input_ids"].shape[1]
        assert (started.image_tokens > 0, started.video_tokens > 0) == (bool(images), bool(clips))

    def prepare(text: str) -> int:
        prompt = PromptRequest([{"role": "user", "content": text}])
        return engine.prepare("any", prompt, PARAMETERS).image_tokens

    assert prepare("An <image> in HTML.") == 0
    if not videos:
        with pytest.raises(VlmqError) as caught:
            engine.prepare(
                "any", PromptRequest([{"role": "user", "content": [{"type": "video"}]}], [], [clip]), PARAMETERS
            )
        assert caught.value.code == ErrorCode.UNSUPPORTED_MODALITY
    engine.close()
