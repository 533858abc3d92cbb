"""Given frames of a video by torchcodec. Runs in a decoding child only."""

import importlib
import io
from collections.abc import Iterator
from typing import Any, BinaryIO

from av.video.frame import VideoFrame

from media.frame_reader import FramesMissingError
from media.own_position import OwnPosition
from media.timeline import Timeline


class TorchcodecReader:
    """Torchcodec reads all packets first and finds frames exactly."""

    def __init__(self, source: BinaryIO, timeline: Timeline, tick_s: float) -> None:
        self._decoders: Any = importlib.import_module("torchcodec.decoders")
        self._source = io.BufferedReader(OwnPosition(source))
        self._timeline = timeline
        self._tick_s = tick_s

    def read(self, frames: list[int]) -> Iterator[VideoFrame]:
        """The frames with these indices, which ascend.

        Raises:
            FramesMissingError: one cannot be decoded, or is another to torchcodec.
        """
        self._source.seek(0)
        decoder = self._decoders.VideoDecoder(self._source, dimension_order="NHWC", num_ffmpeg_threads=1)
        times, begin = self._timeline.times, float(decoder.metadata.begin_stream_seconds)
        for frame in frames:
            if frame >= len(decoder):
                raise FramesMissingError(times[frame])
            found = decoder.get_frame_at(frame)
            shown = float(found.pts_seconds) - begin
            if abs(shown - (times[frame] - times[0]) * self._tick_s) > self._tick_s:
                raise FramesMissingError(times[frame])
            yield VideoFrame.from_ndarray(found.data.numpy(), format="rgb24")
