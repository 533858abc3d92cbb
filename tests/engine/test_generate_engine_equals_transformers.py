"""What comes out of the engine is, token for token, what plain transformers generates."""

from typing import Any

import pytest
from transformers import AutoProcessor
from transformers.video_utils import VideoMetadata

from engine.checkpoint import Checkpoint
from engine.generate_engine import GenerateEngine
from engine.types import Delta, GenerationParameters, Picture, PromptRequest, Started, VideoClip
from tests.engine.listening import end_of, run, text_of
from vlmq.config import BUNDLED_CHECKPOINT

TEXT = {"type": "text", "text": "What color is the square?"}
CHATS: dict[str, list[dict[str, Any]]] = {
    "text": [{"role": "user", "content": "hello"}],
    "system": [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": [TEXT]}],
    "one image": [{"role": "user", "content": [{"type": "image"}, TEXT]}],
    "several images": [{"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "image"}, TEXT]}],
    "video": [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "What happens?"}]}],
    "image and video": [{"role": "user", "content": [{"type": "image"}, {"type": "video"}, TEXT]}],
    "several turns": [
        {"role": "system", "content": [{"type": "text", "text": "Answer briefly."}]},
        {"role": "user", "content": [{"type": "image"}, TEXT]},
        {"role": "assistant", "content": [{"type": "text", "text": "red"}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "And here?"}]},
    ],
}


def as_parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def plain_generation(
    checkpoint: Checkpoint, chat: list[dict[str, Any]], images: list[Picture], clips: list[VideoClip], length: int
) -> tuple[list[int], Any]:
    """The documented way: chat template, processor, generate; with a processor of its own."""
    processor: Any = AutoProcessor.from_pretrained(BUNDLED_CHECKPOINT)  # type: ignore[no-untyped-call]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    media: dict[str, Any] = {}
    if images:
        media["images"] = images
    if clips:
        media["videos"] = [clip.frames for clip in clips]
        media["do_sample_frames"] = False
        media["video_metadata"] = [
            VideoMetadata(clip.total_frames, clip.fps, frames_indices=list(clip.frame_indices)) for clip in clips
        ]
    inputs = processor(text=[text], return_tensors="pt", **media)
    output = checkpoint.model.generate(**inputs, max_new_tokens=length, min_new_tokens=8, do_sample=False)
    return output[0, inputs["input_ids"].shape[1] :].tolist(), inputs


@pytest.mark.parametrize("name", CHATS)
def test_tokens_are_those_of_plain_generate(
    name: str, engine: GenerateEngine, checkpoint: Checkpoint, pictures: list[Picture], clip: VideoClip
) -> None:
    chat = CHATS[name]
    kinds = [part["type"] for message in chat for part in as_parts(message)]
    images, clips = pictures[: kinds.count("image")], [clip] * kinds.count("video")
    tokens, inputs = plain_generation(checkpoint, chat, images, clips, 24)
    parameters = GenerationParameters(max_new_tokens=24, min_new_tokens=8, do_sample=False)

    seen: list[int] = []
    take = checkpoint.model.register_forward_hook(
        lambda _m, _i, output: seen.append(int(output.logits[0, -1].argmax()))
    )
    try:
        events = run(engine, PromptRequest(chat, images, clips), parameters)
    finally:
        take.remove()

    end = end_of(events, "only")
    config = checkpoint.model.config
    assert end.completion_tokens == len(tokens)
    # Where `min_new_tokens` forbids the end token, the bare logits may still favour it.
    ends = {config.text_config.eos_token_id}
    assert [(a, b) for a, b in zip(seen, tokens, strict=True) if a != b and a not in ends] == []
    assert end.text == checkpoint.tokenizer.decode(tokens, skip_special_tokens=True).rstrip("\ufffd")
    assert text_of(events, "only") == end.text
    ids = inputs["input_ids"][0].tolist()
    assert events[0] == Started("only", len(ids), ids.count(config.image_token_id), ids.count(config.video_token_id))
    assert sum(event.tokens for event in events if isinstance(event, Delta)) <= end.completion_tokens


def test_a_final_assistant_message_is_continued(engine: GenerateEngine, checkpoint: Checkpoint) -> None:
    chat = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "The color"}]
    processor: Any = AutoProcessor.from_pretrained(BUNDLED_CHECKPOINT)  # type: ignore[no-untyped-call]
    text = processor.apply_chat_template(chat, continue_final_message=True)
    assert text.endswith("The color")
    inputs = processor(text=[text], return_tensors="pt")
    output = checkpoint.model.generate(**inputs, max_new_tokens=8, do_sample=False)
    expected = checkpoint.tokenizer.decode(output[0, inputs["input_ids"].shape[1] :].tolist(), skip_special_tokens=True)
    end = end_of(run(engine, PromptRequest(chat), GenerationParameters(max_new_tokens=8, do_sample=False)), "only")
    assert end.text == expected.rstrip("\ufffd")
