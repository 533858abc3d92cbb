"""When each frame of a video is shown, and from where it can be decoded. Runs in a decoding child only."""

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from vlmq.sniff import MediaType

# AVI has no display times, and hardly a frame of a GIF stands alone.
WITHOUT_SEEKING = frozenset({MediaType.AVI, MediaType.GIF})


@dataclass(frozen=True, slots=True)
class Timeline:
    """All frames in the order of display.

    Attributes:
        times: display times in ticks of the stream's time base, ascending.
        key_frames: indices of frames that decoding can start from, ascending. Estimates when `step` is given.
        last_duration: how long the last frame stays on, in ticks.
        step: ticks from frame to frame when the times were computed from a constant rate, not read.
        counted: frames are to be told by their order, from the start, not by their times.
    """

    times: Sequence[int]
    key_frames: list[int]
    last_duration: int
    step: int | None = None
    counted: bool = False

    def seconds(self, tick: Fraction) -> Sequence[float]:
        """Display times in seconds from the first frame on, where a tick is `tick` seconds."""
        return _Seconds(self.times, tick)

    def key_before(self, frame: int) -> int:
        """Position in `key_frames` of the last one not after `frame`."""
        return max(0, bisect_right(self.key_frames, frame) - 1)


class _Seconds(Sequence[float]):
    """Computed when asked for: an hour has a hundred thousand, of which a few dozen are wanted."""

    def __init__(self, times: Sequence[int], tick: Fraction) -> None:
        self._times, self._first = times, times[0]
        self._numerator, self._denominator = tick.as_integer_ratio()

    def __len__(self) -> int:
        return len(self._times)

    def __getitem__(self, index: Any) -> Any:
        return (self._times[index] - self._first) * self._numerator / self._denominator


def indexed_timeline(stream: VideoStream) -> Timeline | None:
    """The timeline of a stream whose index shows a constant rate, without reading its packets; else None.

    An index has decoding times only. At a constant rate the display times are as far apart, merely in another order.
    """
    # An hour has a hundred thousand entries: each is looked at, and none kept.
    total, step, before = 0, 0, 0
    keys = []
    for entry in stream.index_entries:
        if entry.is_discard:
            continue
        if total == 1:
            step = entry.timestamp - before
        if total and (step <= 0 or entry.timestamp - before != step):
            return None
        if entry.is_keyframe:
            keys.append(total)
        before = entry.timestamp
        total += 1
    if total < 2 or total != stream.frames or stream.start_time is None or not keys:
        return None
    return Timeline(range(stream.start_time, stream.start_time + total * step, step), keys, step, step=step)


def demuxed_timeline(container: InputContainer, stream: VideoStream, media_type: MediaType) -> Timeline | None:
    """The timeline as all packets tell it; None when there are none."""
    counted = media_type in WITHOUT_SEEKING
    shown: list[tuple[int, bool, int]] = []
    is_shown = _is_shown_vp8 if stream.codec_context.name == "vp8" else bool
    for packet in container.demux(stream):
        if packet.size == 0 or packet.is_discard or not is_shown(packet):
            continue
        time = packet.dts if counted or packet.pts is None else packet.pts
        if time is None:
            continue
        counted = counted or packet.pts is None
        shown.append((time, packet.is_keyframe, packet.duration or 0))
    shown.sort()
    if not shown:
        return None
    times = array("q", (time for time, *_ in shown))
    keys = [position for position, (_, is_key, _) in enumerate(shown) if is_key] or [0]
    typical = (times[-1] - times[0]) // max(1, len(times) - 1)
    return Timeline(times, keys, shown[-1][2] or typical, counted=counted)


def _is_shown_vp8(packet: "Packet[VideoStream]") -> bool:
    # Frames that only serve as references travel in packets of their own; a bit in the first byte tells them.
    return bool(memoryview(packet)[0] & 0x10)
