"""A reference to an image or video -> decoded pixels. The sole entry to this package."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from media.jobs import ImageJob, VideoJob, VideoSampling
from media.pixels import Pixels
from media.sandbox import Sandbox
from media.sniff import image_type, video_type
from media.source import LocalFile, RemoteUrl, RootedPath, Source, SourceOpener
from media.template_renderer import TemplateRenderer
from vlmq.config import Settings
from vlmq.cutoff import Cutoff
from vlmq.errors import ErrorCode, VlmqError
from vlmq.video_backends import VideoBackend

__all__ = [
    "DecodedImage",
    "DecodedVideo",
    "LocalFile",
    "MediaLoader",
    "RemoteUrl",
    "RootedPath",
    "Source",
    "VideoSampling",
]


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """Pixels (height, width, 3), uint8, and the hash of the bytes they came from."""

    pixels: Pixels
    sha256: str


@dataclass(frozen=True, slots=True)
class DecodedVideo:
    """Frames (number, height, width, 3), uint8, with what is known of the whole video.

    `timestamps` are seconds from the first frame, `frame_indices` count in the order of display.
    """

    frames: Pixels
    timestamps: tuple[float, ...]
    frame_indices: tuple[int, ...]
    fps: float
    total_frames: int
    duration: float
    sha256: str


class MediaLoader:
    """Fetches and decodes. Threads may share one; `close` it."""

    def __init__(self, settings: Settings) -> None:
        self._limits = settings.limits
        self._sources = SourceOpener(settings)
        self._sandbox = Sandbox(settings.limits.decode_memory_bytes)
        self._sandbox.start()
        self.templates = TemplateRenderer(self._sandbox)

    def load_image(
        self,
        source: Source,
        *,
        param: str,
        limit_pixels: int | None = None,
        max_pixels: int | None = None,
        cutoff: Cutoff | None = None,
    ) -> DecodedImage:
        """The image behind `source`, refused above `limit_pixels`, scaled down to `max_pixels` when it has more.

        A `cutoff` ends it early, with `media_timeout`.

        Raises:
            VlmqError: what is wrong with the URL, the download, the file or the image, with `param`.
        """
        limits, cutoff = self._limits, cutoff or Cutoff()
        with self._sources.open(source, limits.max_image_bytes, param, cutoff) as opened:
            media_type = image_type(opened.head, from_url=isinstance(source, RemoteUrl), param=param)
            job = ImageJob(
                media_type,
                min(limits.max_image_pixels, limits.max_image_pixels if limit_pixels is None else limit_pixels),
                max_pixels,
            )
            with _naming(param):
                pixels, _ = self._sandbox.image(job, opened.file, limits.decode_timeout_s, cutoff)
            return DecodedImage(pixels, opened.sha256)

    def load_video(
        self,
        source: Source,
        sampling: VideoSampling,
        *,
        param: str,
        cutoff: Cutoff | None = None,
        backend: VideoBackend = "pyav",
    ) -> DecodedVideo:
        """The frames that `sampling` means of the video behind `source`; a `cutoff` ends it early.

        Raises:
            VlmqError: what is wrong with the sampling, the URL, the download, the file or the video, with `param`.
        """
        sampling.check(param)
        limits, cutoff = self._limits, cutoff or Cutoff()
        with self._sources.open(source, limits.max_video_bytes, param, cutoff) as opened:
            media_type = video_type(opened.head, from_url=isinstance(source, RemoteUrl), param=param)
            job = VideoJob(media_type, limits.max_video_pixels, limits.max_video_s, sampling, backend)
            with _naming(param):
                frames, facts = self._sandbox.video(job, opened.file, limits.decode_timeout_s, cutoff)
            return DecodedVideo(
                frames=frames,
                timestamps=facts.timestamps,
                frame_indices=facts.frame_indices,
                fps=facts.fps,
                total_frames=facts.total_frames,
                duration=facts.duration,
                sha256=opened.sha256,
            )

    def load_frames(
        self,
        sources: Sequence[Source],
        times: Sequence[float],
        *,
        fps: float,
        param: str,
        max_pixels: int | None = None,
        cutoff: Cutoff | None = None,
    ) -> DecodedVideo:
        """A video that comes as images of one size, each with its time; numbered from 0 in their order.

        Raises:
            VlmqError: what is wrong with an image, with its own field; `video_invalid` when the sizes differ.
        """
        frames: Pixels | None = None
        digest = hashlib.sha256()
        for at, source in enumerate(sources):
            image = self.load_image(source, param=f"{param}.frames.{at}", max_pixels=max_pixels, cutoff=cutoff)
            if frames is None:
                frames = np.empty((len(sources), *image.pixels.shape), np.uint8)
            if image.pixels.shape != frames.shape[1:]:
                (height, width), (first_height, first_width) = image.pixels.shape[:2], frames.shape[1:3]
                message = (
                    f"All frames of a video must have one size; frame {at} has {width} x {height} pixels, "
                    f"the first {first_width} x {first_height}."
                )
                raise VlmqError(ErrorCode.VIDEO_INVALID, message, param=f"{param}.frames.{at}")
            frames[at] = image.pixels
            digest.update(bytes.fromhex(image.sha256))
        if frames is None:
            raise VlmqError(ErrorCode.VIDEO_INVALID, "The video has no frames.", param=param)
        return DecodedVideo(
            frames=frames,
            timestamps=tuple(times),
            frame_indices=tuple(range(len(sources))),
            fps=fps,
            total_frames=len(sources),
            duration=times[-1] + (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 1 / fps,
            sha256=digest.hexdigest(),
        )

    def close(self) -> None:
        """End the decoding processes."""
        self._sandbox.close()


@contextmanager
def _naming(param: str) -> Iterator[None]:
    """Decoding knows nothing of requests; its errors get their field's name here."""
    try:
        yield
    except VlmqError as error:
        error.param = param
        raise
