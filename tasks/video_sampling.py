"""How a video is sampled: what the job says, then what the operator set, then what the checkpoint is made for."""

from dataclasses import dataclass
from typing import Any

from engine.types import VideoDefaults
from media.load import VideoSampling
from vlmq.served_model import ServedModel

DEFAULT_FRAMES = 8
DEFAULT_MAX_FRAMES = 128
# What transformers takes for a list of frames that comes without times.
LISTED_FPS = 24.0
# Frames that follow each other more closely than this have no rate that can be counted with.
MIN_GAP_S = 1e-9
_WAYS = ("num_frames", "fps", "frame_indices", "timestamps")


@dataclass(frozen=True, slots=True)
class SamplingRules:
    """What holds for videos of one served model; `max_video_frames` is the service's own limit."""

    served: ServedModel
    checkpoint: VideoDefaults
    max_video_frames: int

    @property
    def max_frames(self) -> int:
        wanted = self.served.max_frames or self.checkpoint.max_frames or DEFAULT_MAX_FRAMES
        return min(wanted, self.max_video_frames)

    def sampling(self, part: dict[str, Any], pixels: int) -> VideoSampling:
        """Of a stored part; `pixels` are what all its frames together may have."""
        way: dict[str, Any] = {name: part[name] for name in _WAYS if name in part}
        min_frames = 1
        if not way:
            way, min_frames = self._default()
        most = way.get("num_frames") or len(way.get("frame_indices") or way.get("timestamps") or ()) or self.max_frames
        each = max(1, pixels // most)
        lists = {name: tuple(value) for name, value in way.items() if isinstance(value, list)}
        return VideoSampling(
            **(way | lists),
            start=part.get("start"),
            end=part.get("end"),
            min_frames=min_frames,
            max_frames=self.max_frames,
            max_pixels=min(each, part.get("max_pixels") or each),
        )

    def _default(self) -> tuple[dict[str, Any], int]:
        checkpoint = self.checkpoint
        if self.served.default_num_frames is None and checkpoint.num_frames is None and checkpoint.fps is not None:
            return {"fps": checkpoint.fps}, min(checkpoint.min_frames or 1, self.max_frames)
        wanted = self.served.default_num_frames or checkpoint.num_frames or DEFAULT_FRAMES
        return {"num_frames": min(wanted, self.max_frames)}, 1


def listed_times(part: dict[str, Any]) -> tuple[list[float], float]:
    """When each frame of a list was shown, in seconds, and the rate that numbers them by."""
    count = len(part["frames"])
    times = part.get("timestamps")
    if times is None:
        fps = part.get("fps") or LISTED_FPS
        return [number / fps for number in range(count)], fps
    gap = (times[-1] - times[0]) / (count - 1) if count > 1 else 0.0
    if gap >= MIN_GAP_S and all(abs(time - number * gap) <= 1e-3 for number, time in enumerate(times)):
        return times, 1 / gap
    # Models that print times compute them from a rate and numbers: then each number is a millisecond.
    return times, 1000.0
