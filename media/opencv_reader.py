"""Given frames of a video by OpenCV. Runs in a decoding child only."""

import importlib
import io
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from av.video.frame import VideoFrame

from media.frame_reader import FramesMissingError
from media.own_position import OwnPosition
from media.timeline import Timeline


class OpenCvReader:
    """Decodes forward; jumps to a key frame where that is nearer, and checks by its time where it has landed."""

    def __init__(self, source: BinaryIO, timeline: Timeline, tick_s: float) -> None:
        self._cv2: Any = importlib.import_module("cv2")
        self._source = io.BufferedReader(OwnPosition(source))
        self._timeline = timeline
        self._times_ms = array("d", ((time - timeline.times[0]) * tick_s * 1000 for time in timeline.times))
        self._slack_ms = tick_s * 500 + 1e-3
        self._capture: Any = None
        self._begin_ms = 0.0

    def read(self, frames: list[int]) -> Iterator[VideoFrame]:
        """The frames with these indices, which ascend.

        Raises:
            FramesMissingError: one cannot be decoded.
        """
        position = self._start_over()
        for frame in frames:
            key = self._timeline.key_frames[self._timeline.key_before(frame)]
            if key > position + 1 and not self._timeline.counted:
                position = self._jump(key, frame)
            while position < frame:
                position = self._grab(position)
            if position != frame:
                raise FramesMissingError(self._timeline.times[frame])
            taken, pixels = self._capture.retrieve()
            if not taken:
                raise FramesMissingError(self._timeline.times[frame])
            yield VideoFrame.from_ndarray(np.ascontiguousarray(pixels[..., ::-1]), format="rgb24")

    def _start_over(self) -> int:
        self._source.seek(0)
        self._capture = self._cv2.VideoCapture(self._source, self._cv2.CAP_FFMPEG, [])
        if not self._capture.isOpened() or not self._capture.grab():
            raise FramesMissingError(self._timeline.times[0])
        self._begin_ms = self._capture.get(self._cv2.CAP_PROP_POS_MSEC)
        return 0

    def _jump(self, key: int, frame: int) -> int:
        """Go to a key frame, by OpenCV's count of frames, which a varying rate misleads."""
        self._capture.set(self._cv2.CAP_PROP_POS_FRAMES, key)
        position = self._grab(-1)
        return position if 0 <= position <= frame else self._start_over()

    def _grab(self, position: int) -> int:
        """The index of the next frame; -1 when its time is none of the timeline's, as after an inexact jump."""
        if not self._capture.grab():
            raise FramesMissingError(self._timeline.times[max(position, 0)])
        if self._timeline.counted:
            return position + 1
        shown_ms = self._capture.get(self._cv2.CAP_PROP_POS_MSEC) - self._begin_ms
        index = bisect_left(self._times_ms, shown_ms - self._slack_ms)
        if index < len(self._times_ms) and abs(self._times_ms[index] - shown_ms) <= self._slack_ms:
            return index
        if position < 0:
            return -1
        raise FramesMissingError(self._timeline.times[position])
