"""An animated PNG or WebP -> RGB frames, as a video. Runs in a decoding child only."""

from array import array
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from media.animation_times import MILLISECOND, frame_durations
from media.image import PILLOW_FORMATS, orientation, upright
from media.jobs import VideoFacts, VideoJob
from media.pixels import PixelSink
from media.sampling import choose_frames
from media.video import check_extent, check_picture
from vlmq.errors import ErrorCode, VlmqError


def decode_animation(job: VideoJob, source: BinaryIO, sink: PixelSink) -> VideoFacts:
    """Decode the frames that the job means into `sink` as (frames, height, width, 3), upright, and over white.

    Frames build on each other, so that all before the last wanted one are decoded; no more than the result and one
    frame are held.

    Raises:
        VlmqError: `video_invalid`, `video_too_large`, or `unsupported_media_type` for a still image. Whatever else
            Pillow raises means an invalid video, too.
    """
    if job.backend != "pyav":
        message = f"{job.backend} decodes no {job.media_type}; leave the backend out."
        raise VlmqError(ErrorCode.UNSUPPORTED_PARAMETER, message)
    canvas, durations = frame_durations(job.media_type, source)
    check_picture(job, *canvas)
    times, total_s = array("d"), 0.0
    for duration in durations:
        # To the microsecond, so that tenths are shown as such.
        times.append(round(total_s, 6))
        total_s += duration
    check_extent(job, total_s, len(times) / total_s)
    chosen = choose_frames(times, total_s, MILLISECOND, job.sampling)
    if not chosen:
        message = f"The video has no frames in the clip that is asked for; it lasts {total_s:.3f} s."
        raise VlmqError(ErrorCode.VIDEO_INVALID, message)
    source.seek(0)
    _write(Image.open(source, formats=[PILLOW_FORMATS[job.media_type]]), chosen, job.sampling.max_pixels, sink)
    return VideoFacts(
        timestamps=tuple(times[index] for index in chosen),
        frame_indices=tuple(chosen),
        fps=len(times) / total_s,
        total_frames=len(times),
        duration=total_s,
    )


def _write(image: Image.Image, chosen: list[int], max_pixels: int | None, sink: PixelSink) -> None:
    # A PNG may bring a picture of its own for those who show no animations; Pillow counts it as the first frame.
    first = 1 if getattr(image, "default_image", False) else 0
    turn = orientation(image)
    pixels = None
    for position, index in enumerate(chosen):
        image.seek(first + index)
        _load(image)
        picture = np.asarray(upright(image, turn, max_pixels))
        if pixels is None:
            pixels = sink.allocate((len(chosen), *picture.shape))
        pixels[position] = picture


def _load(image: Any) -> None:
    """Decode a frame, so that the next can still be built on the one before: a PNG's frame may ask to be undone.

    Pillow draws over that one where a frame is blended, and forgets what was there.
    """
    before = getattr(image, "_prev_im", None)
    kept = None if before is None else before.copy()
    image.load()
    if kept is not None:
        image._prev_im = kept
