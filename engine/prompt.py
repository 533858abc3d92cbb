"""A chat and its pixels become the model's inputs."""

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.video_utils import VideoMetadata

from engine.chat import ChatRenderer
from engine.hidden_tokens import hidden_tokens
from engine.types import Modality, PromptRequest, RenderTemplate, VideoClip
from vlmq.errors import ErrorCode, VlmqError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """The processor's tensors, on the CPU, and what they cost. `continues` the assistant's last message or not.

    `text` is what the template wrote, with one placeholder a medium; `lead` is as in `Sequence`.
    """

    inputs: Any
    text: str
    lead: str
    continues: bool
    tokens: int
    image_tokens: int
    video_tokens: int


class PromptBuilder:
    """Builds prompts with one checkpoint's processor, for many threads at once."""

    def __init__(self, processor: Any, modalities: frozenset[Modality], render: RenderTemplate | None = None) -> None:
        self._processor = processor
        self._hidden = hidden_tokens(processor)
        self._chats = ChatRenderer(processor, modalities, render)

    def build(self, request: PromptRequest) -> Prompt:
        """Render the chat and process it with its pixels.

        Raises:
            VlmqError: see `Engine.prepare`.
        """
        text = self._chats.render(request)
        inputs = self._process(text, request)
        ids = inputs["input_ids"][0]
        if not len(ids):
            problem = "The chat template wrote nothing for the model to read"
            raise VlmqError(
                ErrorCode.TEMPLATE_ERROR, problem, param="chat_template" if request.chat_template else "messages"
            )
        image_tokens = _count(ids, self._processor.image_token_ids)
        video_tokens = _count(ids, self._processor.video_token_ids)
        if request.videos and not video_tokens:
            # Some families write a video's frames with the image token.
            of_images = self._image_tokens(request)
            image_tokens, video_tokens = of_images, image_tokens - of_images
        lead = self._readable(ids) if request.return_full_text else ""
        return Prompt(inputs, text, lead, request.continues, len(ids), image_tokens, video_tokens)

    def _readable(self, ids: torch.Tensor) -> str:
        """The prompt as a reader sees it, without the marks that no text of a model shows."""
        shown = [token for token in ids.tolist() if token not in self._hidden]
        text: str = self._processor.tokenizer.decode(shown, skip_special_tokens=True)
        return text

    def _image_tokens(self, request: PromptRequest) -> int:
        """What the images cost without the videos."""
        if not request.images:
            return 0
        alone = self._process(self._processor.image_token * len(request.images), replace(request, videos=[]))
        return _count(alone["input_ids"][0], self._processor.image_token_ids)

    def _process(self, text: str, request: PromptRequest) -> Any:
        if request.images and request.videos and self._mixes_up_media():
            problem = "This model takes images or videos, not both in one conversation"
            raise VlmqError(ErrorCode.UNSUPPORTED_MODALITY, problem, param="messages")
        media: dict[str, Any] = {}
        if request.images:
            # Every family takes Pillow's images; not all take arrays, and some guess wrongly where their channels are.
            media["images"] = [[Image.fromarray(picture) for picture in request.images]]
        if request.videos:
            clips = [self._long_enough(clip) for clip in request.videos]
            media["videos"] = [[clip.frames for clip in clips]]
            media["videos_kwargs"] = {
                "input_data_format": "channels_last",
                "do_sample_frames": False,
                "video_metadata": [[_metadata(clip) for clip in clips]],
            }
        bos = self._processor.tokenizer.bos_token
        adds_bos = not (bos and text.startswith(bos))
        try:
            return self._processor(
                text=[text], **media, text_kwargs={"add_special_tokens": adds_bos}, return_tensors="pt"
            )
        except (ValueError, ZeroDivisionError, RuntimeError) as error:
            if isinstance(error, torch.OutOfMemoryError) or not (media or isinstance(error, ValueError)):
                raise
            if not media:
                logger.info("the processor refused a text without media: %s", error)
                problem = "This model takes no text alone; send an image with it"
                raise VlmqError(ErrorCode.UNSUPPORTED_MODALITY, problem, param="messages") from error
            logger.info("the processor refused a request's media", exc_info=True)
            code = ErrorCode.VIDEO_INVALID if request.videos else ErrorCode.IMAGE_INVALID
            problem = "The model's processor cannot use this media; is it very small, or very long and narrow?"
            raise VlmqError(code, problem, param="messages") from error

    def _mixes_up_media(self) -> bool:
        """Whether the processor would put the videos' pixels in the place of the images'."""
        processors = (self._processor.image_processor, self._processor.video_processor)
        of_images, of_videos = ({n for n in p.model_input_names if n.startswith("pixel")} for p in processors)
        return bool(of_images & of_videos)

    def _long_enough(self, clip: VideoClip) -> VideoClip:
        """Models that look at two frames at a time cannot take one: it is shown twice."""
        lacking = getattr(self._processor.video_processor, "temporal_patch_size", None) or 1
        lacking -= len(clip.frames)
        if lacking <= 0:
            return clip
        return replace(
            clip,
            frames=np.concatenate([clip.frames, *[clip.frames[-1:]] * lacking]),
            timestamps=clip.timestamps + clip.timestamps[-1:] * lacking,
            frame_indices=clip.frame_indices + clip.frame_indices[-1:] * lacking,
        )


def _count(ids: torch.Tensor, wanted: list[int | None]) -> int:
    known = [token for token in wanted if token is not None]
    return int(torch.isin(ids, torch.tensor(known, dtype=ids.dtype)).sum()) if known else 0


def _metadata(clip: VideoClip) -> VideoMetadata:
    """Processors print index / fps as a frame's time, which is wrong for a varying frame rate: then shift the index."""
    indices = [
        index if abs(index / clip.fps - time) * clip.fps < 1 else round(time * clip.fps)
        for index, time in zip(clip.frame_indices, clip.timestamps, strict=True)
    ]
    return VideoMetadata(
        total_num_frames=max(clip.total_frames, max(indices) + 1),
        fps=clip.fps,
        width=clip.frames.shape[2],
        height=clip.frames.shape[1],
        duration=clip.duration,
        frames_indices=indices,
    )
