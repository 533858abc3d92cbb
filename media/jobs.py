"""What is asked of a decoding child and what it answers.

Both travel as JSON: an answer comes from a process that has parsed hostile bytes, and unpickling it would hand the
parent to them.
"""

import math
from dataclasses import dataclass

from vlmq.errors import ErrorCode, VlmqError
from vlmq.sniff import MediaType

# A child says this when it has its job and is about to look at the bytes: what happens from here on is their doing.
STARTED = b"."


@dataclass(frozen=True, slots=True)
class VideoSampling:
    """Which frames of a video: `num_frames` spread evenly or `fps` a second, one of the two, within `max_frames`.

    `start` and `end` cut a clip out, in seconds from the first frame. `max_pixels` bounds width times height; larger
    frames are scaled down.
    """

    num_frames: int | None = None
    fps: float | None = None
    start: float | None = None
    end: float | None = None
    max_frames: int = 128
    max_pixels: int | None = None

    def check(self, param: str | None) -> None:
        """Refuse what means nothing.

        Raises:
            VlmqError: `invalid_request`.
        """
        numbers = [value for value in (self.num_frames, self.fps, self.start, self.end) if value is not None]
        problem = None
        if (self.num_frames is None) == (self.fps is None):
            problem = "needs one of num_frames and fps"
        elif not all(math.isfinite(value) for value in numbers):
            problem = "must be sampled with finite numbers"
        elif self.num_frames is not None and not 1 <= self.num_frames <= self.max_frames:
            problem = f"takes a num_frames from 1 to {self.max_frames}"
        elif self.fps is not None and self.fps <= 0:
            problem = "takes an fps above 0"
        elif (self.start or 0) < 0 or (self.end is not None and self.end <= (self.start or 0)):
            problem = "needs 0 <= start < end"
        if problem is not None:
            raise VlmqError(ErrorCode.INVALID_REQUEST, f"The video {problem}.", param=param)


@dataclass(frozen=True, slots=True)
class ImageJob:
    """Decode one image; `max_pixels` asks for it scaled down, `max_source_pixels` refuses it."""

    media_type: MediaType
    max_source_pixels: int
    max_pixels: int | None = None


@dataclass(frozen=True, slots=True)
class VideoJob:
    """Decode frames of one video."""

    media_type: MediaType
    max_source_pixels: int
    max_duration_s: float
    sampling: VideoSampling


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is known of an image beside its pixels."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What is known of a video beside its pixels; `fps` and `duration` are those of the whole source."""

    timestamps: tuple[float, ...]
    frame_indices: tuple[int, ...]
    fps: float
    total_frames: int
    duration: float
