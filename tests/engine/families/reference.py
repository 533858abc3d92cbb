"""Conversations of every kind, and what plain transformers makes of them without any code of ours."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoProcessor
from transformers.video_utils import VideoMetadata

from engine.types import Picture, VideoClip
from tests.engine.families.family import Case

Chat = list[dict[str, Any]]

_ASK = {"type": "text", "text": "What is it?"}
_IMAGE = {"type": "image"}
_VIDEO = {"type": "video"}
CHATS: dict[Case, Chat] = {
    "text": [{"role": "user", "content": [_ASK]}],
    "image": [{"role": "user", "content": [_IMAGE, _ASK]}],
    "images": [{"role": "user", "content": [_IMAGE, _IMAGE, _ASK]}],
    "turns": [
        {"role": "user", "content": [_IMAGE, _ASK]},
        {"role": "assistant", "content": [{"type": "text", "text": "A square."}]},
        {"role": "user", "content": [_IMAGE, {"type": "text", "text": "And here?"}]},
    ],
    "system": [
        {"role": "system", "content": [{"type": "text", "text": "Answer briefly."}]},
        {"role": "user", "content": [_IMAGE, _ASK]},
    ],
    "video": [{"role": "user", "content": [_VIDEO, _ASK]}],
    "image and video": [{"role": "user", "content": [_IMAGE, _VIDEO, _ASK]}],
}


def count(chat: Chat, kind: str) -> int:
    return sum(part["type"] == kind for message in chat for part in message["content"])


def plain_inputs(folder: Path, chat: Chat, images: list[Picture], clips: list[VideoClip]) -> Any:
    """The processor's documented way: the chat with its media in it, to tensors, in one call."""
    processor: Any = AutoProcessor.from_pretrained(folder)  # type: ignore[no-untyped-call]
    pictures = [Image.fromarray(picture) for picture in images]
    if processor.chat_template is None:
        # As the model cards of such families do it: placeholders and words by hand.
        words = "".join(part.get("text", "") for part in chat[-1]["content"])
        text = [processor.image_token * len(pictures) + words]
        return processor(text=text, images=[pictures], return_tensors="pt")
    media = {"image": iter(pictures), "video": iter(clip.frames for clip in clips)}
    messages = [
        {
            "role": message["role"],
            "content": [
                part if part["type"] == "text" else part | {part["type"]: next(media[part["type"]])}
                for part in message["content"]
            ],
        }
        for message in chat
    ]
    options: dict[str, Any] = {}
    if clips:
        options = {"do_sample_frames": False, "video_metadata": [[_metadata(clip) for clip in clips]]}
    return processor.apply_chat_template(
        messages,
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs=options,
    )


def plain_tokens(model: Any, inputs: Any, length: int) -> list[int]:
    """The new tokens of greedy decoding."""
    with torch.inference_mode():
        output = model.generate(**inputs, max_new_tokens=length, do_sample=False)
    tokens: list[int] = output[0, inputs["input_ids"].shape[1] :].tolist()
    return tokens


def _metadata(clip: VideoClip) -> VideoMetadata:
    return VideoMetadata(
        total_num_frames=clip.total_frames,
        fps=clip.fps,
        width=clip.frames.shape[2],
        height=clip.frames.shape[1],
        duration=clip.duration,
        frames_indices=list(clip.frame_indices),
    )
