"""One video's bytes -> RGB frames. Runs in a decoding child only."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideData
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from media.backends import READERS, Reader
from media.frame_reader import FrameReader, FramesMissingError
from media.jobs import VideoFacts, VideoJob
from media.pixels import PixelSink
from media.sampling import choose_frames
from media.timeline import WITHOUT_SEEKING, Timeline, demuxed_timeline, indexed_timeline
from media.truncation import missing_bytes
from vlmq.errors import ErrorCode, VlmqError
from vlmq.sniff import MediaType

MAX_FPS = 1000
DECODER_THREADS = 2
READ_BYTES = 256 * 1024

# The demuxer is named, so that nothing is probed and no playlist can name further files or URLs.
_DEMUXERS = {
    MediaType.MP4: "mov",
    MediaType.QUICKTIME: "mov",
    MediaType.WEBM: "matroska",
    MediaType.MATROSKA: "matroska",
    MediaType.AVI: "avi",
    MediaType.GIF: "gif",
}
_CODECS = frozenset(
    {"h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4", "mpeg1video"}
    | {"mpeg2video", "mjpeg", "h263", "theora", "prores", "ffv1", "gif", "wmv1", "wmv2", "rawvideo", "png"}
)


@dataclass(frozen=True, slots=True)
class _Video:
    source: BinaryIO
    container: InputContainer
    stream: VideoStream


def decode_video(job: VideoJob, source: BinaryIO, sink: PixelSink) -> VideoFacts:
    """Decode the frames that the job means into `sink` as (frames, height, width, 3), upright.

    Raises:
        VlmqError: `video_invalid` or `video_too_large`. Whatever else PyAV raises means an invalid video, too.
    """
    if missing_bytes(job.media_type, source) > 0:
        raise _invalid("is truncated: its end is missing")
    try:
        container = av.open(
            source,
            mode="r",
            format=_DEMUXERS[job.media_type],
            container_options={"protocol_whitelist": ""},
            metadata_errors="replace",
            buffer_size=READ_BYTES,
        )
    except av.InvalidDataError as error:
        raise _invalid("is damaged or truncated: its index cannot be read") from error
    with container:
        stream = _picture_stream(container)
        _check_claims(job, container, stream)
        # Safe as long as PyAV's log stays off, as it is at first: it would call Python from FFmpeg's threads, and hang.
        stream.codec_context.thread_type = "AUTO"
        stream.codec_context.thread_count = DECODER_THREADS
        stream.codec_context.options = {"max_pixels": str(job.max_source_pixels)}
        timeline = None if job.media_type in WITHOUT_SEEKING else indexed_timeline(stream)
        if timeline is not None:
            try:
                return _decode(job, _Video(source, container, stream), timeline, sink)
            except FramesMissingError:
                # The rate was not as constant as it looked, or the file is cut: reading the packets will tell.
                container.seek(timeline.times[0], stream=stream)
        timeline = demuxed_timeline(container, stream, job.media_type)
        if timeline is None:
            raise _invalid("has no frames")
        if len(timeline.times) < stream.frames and job.media_type in (MediaType.MP4, MediaType.QUICKTIME):
            raise _invalid(f"is truncated: it has {len(timeline.times)} of {stream.frames} frames")
        try:
            return _decode(job, _Video(source, container, stream), timeline, sink)
        except FramesMissingError as missing:
            at = float((missing.time - timeline.times[0]) * _time_base(stream))
            raise _invalid(f"is damaged or truncated: the frame at {at:.3f} s cannot be decoded") from missing


def _decode(job: VideoJob, video: _Video, timeline: Timeline, sink: PixelSink) -> VideoFacts:
    stream = video.stream
    tick = _time_base(stream)
    total = len(timeline.times)
    times = timeline.seconds(tick)
    duration = times[-1] + float(timeline.last_duration * tick)
    fps = _frame_rate(stream, total, duration)
    check_extent(job, duration, fps)
    chosen = choose_frames(times, duration, float(tick), job.sampling)
    if not chosen:
        raise _invalid(f"has no frames in the clip that is asked for; it lasts {duration:.3f} s")
    reader: Reader = FrameReader(video.container, stream, timeline)
    mirror = None
    if (make := READERS.get(job.backend)) is not None:
        # Other libraries turn their frames, but neither mirror them nor say that they should be.
        mirror = _mirror(next(reader.read(chosen[:1])))
        reader = make(video.source, timeline, float(tick))
    _write(reader.read(chosen), len(chosen), mirror, job, sink)
    return VideoFacts(
        timestamps=tuple(times[index] for index in chosen),
        frame_indices=tuple(chosen),
        fps=fps,
        total_frames=total,
        duration=duration,
    )


def _write(frames: Iterator[VideoFrame], count: int, mirror: int | None, job: VideoJob, sink: PixelSink) -> None:
    """Scale while decoding, so that no more than the result and one frame are held."""
    pixels = None
    width = height = turns = 0
    for position, frame in enumerate(frames):
        if pixels is None:
            width, height = _scaled(frame.width, frame.height, job.sampling.max_pixels)
            turns = round(frame.rotation / 90) % 4
            mirror = _mirror(frame) if mirror is None else mirror
            shape = (width, height) if turns % 2 else (height, width)
            pixels = sink.allocate((count, *shape, 3))
        if (frame.width, frame.height) == (width, height):
            picture = frame.to_ndarray(format="rgb24")
        else:
            picture = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="BICUBIC")
        turned = np.rot90(picture, turns)
        pixels[position] = turned if mirror is None else np.flip(turned, mirror)


def _mirror(frame: VideoFrame) -> int | None:
    """The axis along which its display matrix flips it, once it is turned by its angle; None if it does not."""
    found: Any = frame.side_data  # PyAV's annotations know no kinds
    matrix = found.get(SideData.DISPLAYMATRIX)
    if matrix is None:
        return None
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix))
    return round(frame.rotation / 90) % 2 if a * d < b * c else None


def _picture_stream(container: InputContainer) -> VideoStream:
    for stream in container.streams.video:
        if stream.disposition & Disposition.attached_pic:
            continue
        # FFmpeg leaves a stream without a decoder, or with one that nobody has looked at, without a context.
        codec = stream.codec_context.name if stream.codec_context is not None else "unknown"
        if codec not in _CODECS:
            raise _invalid(f"has a codec that is not supported ({codec})")
        return stream
    raise _invalid("has sound but no pictures" if container.streams.audio else "has no pictures")


def _check_claims(job: VideoJob, container: InputContainer, stream: VideoStream) -> None:
    """Refuse by what the headers say, before a frame is decoded."""
    check_picture(job, stream.codec_context.width, stream.codec_context.height)
    claimed = max((container.duration or 0) / av.time_base, float((stream.duration or 0) * _time_base(stream)), 0.0)
    check_extent(job, claimed, float(stream.average_rate or 0))


def check_picture(job: VideoJob, width: int, height: int) -> None:
    """Raises VlmqError for a picture that is too large or hardly there."""
    if width * height > job.max_source_pixels:
        message = f"The video has {width} x {height} pixels; at most {job.max_source_pixels} are taken."
        raise VlmqError(ErrorCode.VIDEO_TOO_LARGE, message)
    if width < 2 or height < 2:
        # FFmpeg takes back a size that it could not compute with.
        nothing = "has no frames, or they are larger than any decoder takes"
        raise _invalid(nothing if not width else f"has {width} x {height} pixels; each side needs at least 2")


def check_extent(job: VideoJob, duration: float, fps: float) -> None:
    """Raises VlmqError for what lasts too long (`duration` in seconds) or shows too many frames a second."""
    if duration > job.max_duration_s:
        message = f"The video lasts {duration:.0f} s; at most {job.max_duration_s:g} s are taken."
        raise VlmqError(ErrorCode.VIDEO_TOO_LARGE, message)
    if fps > MAX_FPS:
        message = f"The video has {fps:.0f} frames a second; at most {MAX_FPS} are taken."
        raise VlmqError(ErrorCode.VIDEO_TOO_LARGE, message)


def _frame_rate(stream: VideoStream, total: int, duration: float) -> float:
    """The container's own exact rate where it holds, else the mean."""
    declared = float(stream.average_rate or 0)
    mean = total / duration if duration > 0 else declared
    return declared if declared and abs(declared - mean) <= 0.02 * mean else mean


def _scaled(width: int, height: int, max_pixels: int | None) -> tuple[int, int]:
    if max_pixels is None or width * height <= max_pixels:
        return width, height
    scale = (max_pixels / (width * height)) ** 0.5
    return max(2, int(width * scale)), max(2, int(height * scale))


def _time_base(stream: VideoStream) -> Fraction:
    if not stream.time_base:
        raise _invalid("has no clock")
    return stream.time_base


def _invalid(what: str) -> VlmqError:
    return VlmqError(ErrorCode.VIDEO_INVALID, f"The video {what}.")
