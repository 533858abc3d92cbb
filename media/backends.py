"""The libraries that can decode a video's frames instead of PyAV. Runs in decoding processes only.

PyAV reads the container whatever the backend, so that all choose the same frames, and a backend gives pictures only.
"""

import importlib
import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from av.video.frame import VideoFrame

from media.decord_reader import DecordReader
from media.opencv_reader import OpenCvReader
from media.timeline import Timeline
from media.torchcodec_reader import TorchcodecReader
from vlmq.video_backends import VideoBackend


class Reader(Protocol):
    """Given frames of one video, upright."""

    def read(self, frames: list[int]) -> Iterator[VideoFrame]: ...


MakeReader = Callable[[BinaryIO, Timeline, float], Reader]

# A source, when its frames are shown, and how long a tick is in seconds -> a reader.
READERS: dict[VideoBackend, MakeReader] = {
    "opencv": OpenCvReader,
    "decord": DecordReader,
    "torchcodec": TorchcodecReader,
}
_MODULES: dict[VideoBackend, str] = {"opencv": "cv2", "decord": "decord", "torchcodec": "torchcodec.decoders"}
_PACKAGES: dict[VideoBackend, str] = {
    "opencv": "opencv-python-headless",
    "decord": "decord",
    "torchcodec": "torchcodec",
}
_GONE = "torchvision no longer decodes videos; name another backend, or leave it out for pyav."


def prepare(backend: VideoBackend) -> str | None:
    """Import what the backend needs, since a child can open no file; answers why it cannot be used, for the user."""
    if backend == "torchvision":
        return _GONE
    module = _MODULES.get(backend)
    if module is None:
        return None
    try:
        importlib.import_module(module)
    except ModuleNotFoundError:
        return (
            f"The worker has no {backend}; its operator can `pip install {_PACKAGES[backend]}`. Leave the backend out "
            "for pyav, which is always there."
        )
    except Exception:  # noqa: BLE001 - libraries that lack their own libraries raise whatever they like
        traceback.print_exc()
        needs = " It needs FFmpeg's shared libraries (version 4 to 9)." if backend == "torchcodec" else ""
        return f"The worker has {backend}, but it cannot be loaded.{needs} Leave the backend out for pyav."
    return None


def mapped_bytes() -> int:
    """Address space of this process, of which torch takes gigabytes before it has done anything."""
    pages = Path("/proc/self/statm").read_text("ascii").split()[0]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
