"""A way down for jobs whose media do not fit the accelerator's memory: fewer frames, then fewer pixels, and again."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from PIL import Image

from media.load import DecodedImage, DecodedVideo
from media.pixels import Pixels
from tasks.conversation import Conversation
from vlmq.errors import ErrorCode, VlmqError

# Each halves something, so after the last a 64th is left.
MAX_STEPS = 6
# What happens between two frames is what makes a video.
MIN_FRAMES = 2
# An image or frame of fewer pixels shows nothing; 64 by 64.
MIN_PIXELS = 4096

What = Literal["frames", "pixels"]


@dataclass
class Ladder:
    """The conversation as it is tried now, and the steps that led to it."""

    given: Conversation
    allowed: bool
    steps: list[dict[str, Any]] = field(default_factory=list)
    conversation: Conversation = field(init=False)

    def __post_init__(self) -> None:
        self.conversation = self.given

    def step_down(self, error: VlmqError) -> None:
        """Go on with less, after `error`.

        Raises:
            VlmqError: OUT_OF_MEMORY; there is nothing to leave out, or it must not be left out.
        """
        if not (self.given.images or self.given.videos):
            raise error
        if not self.allowed:
            raise _out_of_memory(f"{_size(self.given)} do not fit the memory; allow_degraded: true would try fewer")
        lower = None if len(self.steps) == MAX_STEPS else next_rung(self.conversation, len(self.steps))
        if lower is None:
            raise _out_of_memory(f"Even {_size(self.conversation)} do not fit the memory; send fewer or smaller media")
        what, smaller = lower
        count = _COUNTS[what]
        self.steps.append({"what": what, "from": count(self.conversation), "to": count(smaller)})
        self.conversation = smaller

    def record(self) -> dict[str, Any]:
        """What was left out, for the job's row and its stream."""
        return {"reason": ErrorCode.OUT_OF_MEMORY.value, "steps": list(self.steps)} | {
            what: {"given": count(self.given), "seen": count(self.conversation)} for what, count in _COUNTS.items()
        }


def next_rung(conversation: Conversation, steps: int) -> tuple[What, Conversation] | None:
    """The conversation with half of its frames or half of its pixels, in turns; None when it has no more to lose."""
    turns: tuple[What, What] = ("frames", "pixels") if steps % 2 == 0 else ("pixels", "frames")
    for what in turns:
        smaller = _HALVINGS[what](conversation)
        if smaller is not None:
            return what, smaller
    return None


def half_the_frames(conversation: Conversation) -> Conversation | None:
    """Every second frame of each video, the first and the last among them; None when no video has frames to spare."""
    if all(len(video.timestamps) <= MIN_FRAMES for video in conversation.videos):
        return None
    return _with_media(conversation, conversation.images, [_fewer_frames(video) for video in conversation.videos])


def half_the_pixels(conversation: Conversation) -> Conversation | None:
    """Each image and frame scaled to half its area; None when all are as small as can be."""
    pictures = [*(image.pixels for image in conversation.images), *(video.frames for video in conversation.videos)]
    if not any(_can_shrink(pixels) for pixels in pictures):
        return None
    images = [replace(image, pixels=_smaller(image.pixels[None])[0]) for image in conversation.images]
    videos = [replace(video, frames=_smaller(video.frames)) for video in conversation.videos]
    return _with_media(conversation, images, videos)


def _fewer_frames(video: DecodedVideo) -> DecodedVideo:
    count = len(video.timestamps)
    kept = max(MIN_FRAMES, math.ceil(count / 2))
    if kept >= count:
        return video
    chosen = [round(place * (count - 1) / (kept - 1)) for place in range(kept)]
    return replace(
        video,
        frames=video.frames[chosen],
        timestamps=tuple(video.timestamps[index] for index in chosen),
        frame_indices=tuple(video.frame_indices[index] for index in chosen),
    )


def _can_shrink(pixels: Pixels) -> bool:
    height, width = pixels.shape[-3:-1]
    return bool(height * width >= 2 * MIN_PIXELS)


def _smaller(frames: Pixels) -> Pixels:
    """Frames (T, H, W, 3) of half the area, or the same ones if they are too small for that."""
    if not _can_shrink(frames):
        return frames
    height, width = (max(1, round(side / math.sqrt(2))) for side in frames.shape[1:3])
    scaled = [Image.fromarray(frame).resize((width, height), Image.Resampling.BOX) for frame in frames]
    return np.stack([np.asarray(frame) for frame in scaled])


def _with_media(conversation: Conversation, images: list[DecodedImage], videos: list[DecodedVideo]) -> Conversation:
    """The same conversation about other pixels, with a manifest that says so."""
    left: dict[str, list[dict[str, Any]]] = {
        "image": [_seen_image(image) for image in images],
        "video": [_seen_video(video) for video in videos],
    }
    manifest = [_told(entry, left[entry["type"]].pop(0)) for entry in conversation.manifest]
    return replace(conversation, images=images, videos=videos, manifest=manifest)


def _told(entry: dict[str, Any], seen: dict[str, Any]) -> dict[str, Any]:
    return {name: seen.get(name, value) for name, value in entry.items()}


def _seen_image(image: DecodedImage) -> dict[str, Any]:
    height, width = image.pixels.shape[:2]
    return {"width": width, "height": height}


def _seen_video(video: DecodedVideo) -> dict[str, Any]:
    height, width = video.frames.shape[1:3]
    return {
        "width": width,
        "height": height,
        "frame_timestamps_s": list(video.timestamps),
        "frame_indices": list(video.frame_indices),
    }


def _size(conversation: Conversation) -> str:
    frames = conversation.frame_count()
    counts: Sequence[tuple[int, str]] = ((len(conversation.images), "images"), (frames, "frames"))
    media = " and ".join(f"{count} {name}" for count, name in counts if count)
    return f"{media} of {conversation.pixel_count()} pixels in all"


def _out_of_memory(problem: str) -> VlmqError:
    # The next attempt would run on the same accelerator.
    return VlmqError(ErrorCode.OUT_OF_MEMORY, problem, param="messages", retryable=False)


_HALVINGS: dict[What, Callable[[Conversation], Conversation | None]] = {
    "frames": half_the_frames,
    "pixels": half_the_pixels,
}
_COUNTS: dict[What, Callable[[Conversation], int]] = {
    "frames": Conversation.frame_count,
    "pixels": Conversation.pixel_count,
}
