"""Every backend that is installed gives the frames that PyAV gives, at the same times."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from media.load import LocalFile, MediaLoader, VideoSampling
from tests.media.samples import moving, turn_quarter, write_video
from vlmq.errors import ErrorCode, VlmqError
from vlmq.video_backends import VideoBackend

MODULES: dict[VideoBackend, str] = {"opencv": "cv2", "decord": "decord", "torchcodec": "torchcodec"}
INSTALLED = [backend for backend, module in MODULES.items() if importlib.util.find_spec(module)]
LACKING: list[VideoBackend] = [backend for backend in MODULES if backend not in INSTALLED]

VARYING = [0, 20, 40, 100, 120, 200, 300, 310, 320, 400, 500, 600, 610, 700, 800, 900, 1000, 1100, 1200, 1300]


def constant(path: Path) -> Path:
    return write_video(path, "mp4", "libx264", moving(60), options={"g": "12"})


def varying(path: Path) -> Path:
    return write_video(path, "mp4", "libx264", moving(20), times=VARYING, options={"g": "6"})


def turned(path: Path) -> Path:
    turn_quarter(constant(path))
    return path


def matroska(path: Path) -> Path:
    return write_video(path, "matroska", "libx264", moving(40), options={"g": "10"})


def without_key_frames(path: Path) -> Path:
    return write_video(path, "mp4", "libx264", moving(40), options={"g": "1000", "sc_threshold": "0"})


SAMPLINGS = [
    VideoSampling(num_frames=7),
    VideoSampling(fps=8),
    VideoSampling(frame_indices=(0, 1, 13, 19)),
    VideoSampling(timestamps=(0.05, 0.3, 0.6)),
    VideoSampling(num_frames=3, start=0.3, end=0.6),
    VideoSampling(num_frames=4, max_pixels=4800),
]


@pytest.mark.parametrize("make", [constant, varying, turned, matroska, without_key_frames])
@pytest.mark.parametrize("backend", INSTALLED)
def test_a_backend_gives_the_frames_that_pyav_gives(
    loader: MediaLoader, tmp_path: Path, backend: VideoBackend, make: Callable[[Path], Path]
) -> None:
    source = LocalFile(make(tmp_path / "video"))
    for sampling in SAMPLINGS:
        right = loader.load_video(source, sampling, param="video")
        found = loader.load_video(source, sampling, param="video", backend=backend)
        assert found.timestamps == right.timestamps
        assert found.frame_indices == right.frame_indices
        assert found.frames.shape == right.frames.shape
        # Scaled from RGB instead of from half the chroma, hard edges differ.
        allowed = 1 if sampling.max_pixels is None else 15
        assert np.abs(found.frames.astype(int) - right.frames).mean() < allowed


@pytest.mark.parametrize("backend", INSTALLED)
def test_a_damaged_video_is_refused_by_every_backend(
    loader: MediaLoader, tmp_path: Path, backend: VideoBackend
) -> None:
    data = bytearray(constant(tmp_path / "video").read_bytes())
    at = data.index(b"mdat") + 4
    data[at + 200 : at + 6000] = bytes(5800)
    (tmp_path / "broken").write_bytes(data)
    try:
        video = loader.load_video(
            LocalFile(tmp_path / "broken"), VideoSampling(num_frames=6), param="video", backend=backend
        )
    except VlmqError as error:
        assert error.code is ErrorCode.VIDEO_INVALID
    else:
        assert len(video.timestamps) == 6


@pytest.mark.parametrize("backend", LACKING)
def test_a_backend_that_is_not_installed_says_how_to_get_it(
    loader: MediaLoader, clip: Path, backend: VideoBackend
) -> None:
    with pytest.raises(VlmqError) as refusal:
        loader.load_video(LocalFile(clip), VideoSampling(num_frames=2), param="video", backend=backend)
    assert refusal.value.code is ErrorCode.UNSUPPORTED_PARAMETER
    assert f"`pip install {backend}" in refusal.value.message


def test_torchvision_is_refused_since_it_decodes_no_videos_any_more(loader: MediaLoader, clip: Path) -> None:
    with pytest.raises(VlmqError, match="no longer decodes videos") as refusal:
        loader.load_video(LocalFile(clip), VideoSampling(num_frames=2), param="video", backend="torchvision")
    assert refusal.value.code is ErrorCode.UNSUPPORTED_PARAMETER
