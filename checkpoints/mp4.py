"""Clips as H.264 files, written and read with PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]


def write_mp4(frames: Sequence[Frames] | Frames, fps: float, path: str | Path) -> None:
    """Write uint8 RGB frames (count, height, width, 3; even sides) as an H.264 MP4 file."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "23"}
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


@dataclass(frozen=True)
class Video:
    """Sampled frames (count, height, width, 3) uint8 and where they were in the file."""

    frames: Frames
    indices: list[int]
    fps: float
    total: int

    @property
    def metadata(self) -> dict[str, Any]:
        """As transformers' processors take it in `video_metadata`."""
        return {"fps": self.fps, "frames_indices": self.indices, "total_num_frames": self.total}


def read_mp4(path: Path, count: int = 8) -> Video:
    """Decode a file and take `count` frames at even distances, as the service does."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate or 1)
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    indices = np.linspace(0, len(decoded) - 1, count).round().astype(int).tolist()
    return Video(np.stack([decoded[i] for i in indices]), indices, rate, len(decoded))
