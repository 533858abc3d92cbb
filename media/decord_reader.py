"""Given frames of a video by decord. Runs in a decoding child only."""

import importlib
import io
from collections.abc import Iterator
from typing import Any, BinaryIO

from av.video.frame import VideoFrame

from media.frame_reader import FramesMissingError
from media.own_position import OwnPosition
from media.timeline import Timeline

# decord tells times as 32-bit floats.
_SLACK_S = 2e-3


class DecordReader:
    """Decord takes a file or all of its bytes; here it gets the bytes, since a child may open no file."""

    def __init__(self, source: BinaryIO, timeline: Timeline, tick_s: float) -> None:
        self._decord: Any = importlib.import_module("decord")
        self._source = io.BufferedReader(OwnPosition(source))
        self._timeline = timeline
        self._tick_s = tick_s

    def read(self, frames: list[int]) -> Iterator[VideoFrame]:
        """The frames with these indices, which ascend.

        Raises:
            FramesMissingError: one cannot be decoded, or is another to decord.
        """
        self._source.seek(0)
        video = self._decord.VideoReader(self._source, num_threads=1)
        first, times = self._timeline.times[0], self._timeline.times
        begin = float(video.get_frame_timestamp(0)[0])
        for frame in frames:
            if frame >= len(video):
                raise FramesMissingError(times[frame])
            shown = float(video.get_frame_timestamp(frame)[0]) - begin
            if abs(shown - (times[frame] - first) * self._tick_s) > _SLACK_S:
                raise FramesMissingError(times[frame])
            yield VideoFrame.from_ndarray(video[frame].asnumpy(), format="rgb24")
