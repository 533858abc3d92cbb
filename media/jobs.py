"""What is asked of a decoding child and what it answers.

Both travel as JSON: an answer comes from a process that has parsed hostile bytes, and unpickling it would hand the
parent to them.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

from vlmq.errors import ErrorCode, VlmqError
from vlmq.sniff import MediaType
from vlmq.video_backends import VideoBackend

# A child says this when it has its job and is about to look at the bytes: what happens from here on is their doing.
STARTED = b"."


@dataclass(frozen=True, slots=True)
class VideoSampling:
    """Which frames of a video, at most `max_frames`: one of the first four says how they are chosen.

    `num_frames` are spread evenly; `fps` are so many a second, and at least `min_frames` where there are as many;
    `frame_indices` count in the order of display; `timestamps` name the frames that are shown at these times.
    `start` and `end` cut a clip out of which the first two choose. Times are seconds from the first frame. `max_pixels`
    bounds width times height; larger frames are scaled down.
    """

    num_frames: int | None = None
    fps: float | None = None
    frame_indices: tuple[int, ...] | None = None
    timestamps: tuple[float, ...] | None = None
    start: float | None = None
    end: float | None = None
    min_frames: int = 1
    max_frames: int = 128
    max_pixels: int | None = None

    def check(self, param: str | None) -> None:
        """Refuse what means nothing.

        Raises:
            VlmqError: `invalid_request`.
        """
        ways = (self.num_frames, self.fps, self.frame_indices, self.timestamps)
        times = self.timestamps or ()
        numbers = [value for value in (self.num_frames, self.fps, self.start, self.end, *times) if value is not None]
        explicit = self.frame_indices if self.timestamps is None else self.timestamps
        problem = None
        if sum(way is not None for way in ways) != 1:
            problem = "needs one of num_frames, fps, frame_indices and timestamps"
        elif not all(math.isfinite(value) for value in numbers):
            problem = "must be sampled with finite numbers"
        elif self.num_frames is not None and not 1 <= self.num_frames <= self.max_frames:
            problem = f"takes a num_frames from 1 to {self.max_frames}"
        elif self.fps is not None and self.fps <= 0:
            problem = "takes an fps above 0"
        elif (self.start or 0) < 0 or (self.end is not None and self.end <= (self.start or 0)):
            problem = "needs 0 <= start < end"
        elif explicit is not None and not 1 <= len(explicit) <= self.max_frames:
            problem = f"takes from 1 to {self.max_frames} frames"
        elif explicit is not None and (min(explicit) < 0 or any(b <= a for a, b in pairwise(explicit))):
            problem = "takes frame_indices and timestamps from 0 on, each greater than the one before"
        elif explicit is not None and (self.start is not None or self.end is not None):
            problem = "takes start and end with num_frames or fps only"
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
    backend: VideoBackend = "pyav"


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
