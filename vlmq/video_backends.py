"""The libraries that a job may name for decoding a video."""

from typing import Literal, get_args

VideoBackend = Literal["pyav", "opencv", "decord", "torchcodec", "torchvision"]
VIDEO_BACKENDS: tuple[VideoBackend, ...] = get_args(VideoBackend)
