"""Given frames of a video, decoding as little as possible. Runs in a decoding child only."""

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from media.timeline import Timeline

# Others read the setting once, when they are opened.
_SKIPS_PER_PACKET = frozenset({"h264", "hevc"})


class FramesMissingError(Exception):
    """The frame shown at `time` (in ticks) does not come out of the decoder."""

    def __init__(self, time: int) -> None:
        super().__init__(time)
        self.time = time


class FrameReader:
    """Decodes forward; jumps to a key frame where that is nearer."""

    def __init__(self, container: InputContainer, stream: VideoStream, timeline: Timeline) -> None:
        self._container = container
        self._stream = stream
        self._timeline = timeline
        self._packets: Iterator[Packet[VideoStream]] = iter(())
        self._decoded: deque[VideoFrame] = deque()
        self._wanted: frozenset[int] = frozenset()
        # The last frame that was returned.
        self._position: int | None = None

    def read(self, frames: list[int]) -> Iterator[VideoFrame]:
        """The frames with these indices, which ascend.

        Raises:
            FramesMissingError: one cannot be decoded.
        """
        self._wanted = frozenset(self._timeline.times[frame] for frame in frames)
        if self._timeline.counted:
            yield from self._count(frames)
            return
        for frame in frames:
            yield self._at(frame)
            self._position = frame

    def _count(self, frames: list[int]) -> Iterator[VideoFrame]:
        self._seek(0)
        position = -1
        for frame in frames:
            decoded = None
            while position < frame:
                decoded = self._next()
                position += 1
            if decoded is None or decoded.is_corrupt:
                raise FramesMissingError(self._timeline.times[frame])
            yield decoded

    def _at(self, frame: int) -> VideoFrame:
        time = self._timeline.times[frame]
        key = self._timeline.key_before(frame)
        if self._position is not None and self._timeline.key_frames[key] <= self._position:
            decoded = self._forward_to(time)
            if decoded is not None:
                return decoded
        # A frame may be stored behind a key frame that is shown after it: then the key frame before is needed.
        for start in sorted({key, max(0, key - 1), 0}, reverse=True):
            self._seek(start)
            first = next(self._packets, None)
            if first is None or (first.pts is not None and first.pts > time):
                continue
            self._packets = chain([first], self._packets)
            decoded = self._forward_to(time)
            if decoded is not None:
                return decoded
        raise FramesMissingError(time)

    def _seek(self, key: int) -> None:
        # MP4's index holds decoding times, yet FFmpeg wants display times here, as everywhere.
        self._container.seek(self._timeline.times[self._timeline.key_frames[key]], stream=self._stream)
        self._packets = self._container.demux(self._stream)
        self._decoded.clear()

    def _forward_to(self, time: int) -> VideoFrame | None:
        while (decoded := self._next()) is not None:
            if decoded.pts == time and not decoded.is_corrupt:
                return decoded
            if decoded.pts is not None and decoded.pts >= time:
                self._decoded.appendleft(decoded)
                return None
        return None

    def _next(self) -> VideoFrame | None:
        while not self._decoded:
            packet = next(self._packets, None)
            if packet is None:
                return None
            # The end of a cut file comes as half a packet.
            if packet.is_corrupt:
                continue
            self._prepare(packet)
            with suppress(av.InvalidDataError):
                self._decoded.extend(packet.decode())
        return self._decoded.popleft()

    def _prepare(self, packet: "Packet[VideoStream]") -> None:
        if self._timeline.counted or packet.pts is None:
            return
        if self._timeline.step is not None and (packet.pts - self._timeline.times[0]) % self._timeline.step:
            raise FramesMissingError(packet.pts)
        # A frame that no other refers to costs nothing unless it is wanted itself.
        if self._stream.codec_context.name in _SKIPS_PER_PACKET:
            self._stream.codec_context.skip_frame = "DEFAULT" if packet.pts in self._wanted else "NONREF"
