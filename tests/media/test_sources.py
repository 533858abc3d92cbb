"""Files below the media folder, and videos that come as images."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from media.load import LocalFile, MediaLoader, RootedPath, VideoSampling
from tests.media.conftest import settings_for
from tests.media.samples import image_bytes, moving, picture, write_video
from vlmq.errors import ErrorCode, VlmqError

P = "messages.0.content.0"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    (root / "inner" / "cat.png").write_bytes(image_bytes(picture(40, 30), "PNG"))
    (tmp_path / "secret.png").write_bytes(image_bytes(picture(40, 30, 1), "PNG"))
    return root


@pytest.fixture
def rooted(tmp_path: Path, root: Path) -> Iterator[MediaLoader]:
    loader = MediaLoader(settings_for(tmp_path / "data").model_copy(update={"media_root": root}))
    yield loader
    loader.close()


def refusal(loader: MediaLoader, path: str) -> VlmqError:
    with pytest.raises(VlmqError) as caught:
        loader.load_image(RootedPath(path), param=P)
    return caught.value


def test_a_file_below_the_root_is_read(rooted: MediaLoader, root: Path) -> None:
    assert (rooted.load_image(RootedPath("inner/cat.png"), param=P).pixels == picture(40, 30)).all()
    write_video(root / "clip.mp4", "mp4", "libx264", moving(10))
    video = rooted.load_video(RootedPath("clip.mp4"), VideoSampling(num_frames=2), param=P)
    assert video.frame_indices == (0, 5)


def test_a_link_that_appeared_after_the_door_is_not_followed_at_any_step(rooted: MediaLoader, root: Path) -> None:
    (root / "inner" / "cat.png").unlink()
    (root / "inner" / "cat.png").symlink_to(root.parent / "secret.png")
    (root / "out").symlink_to(root.parent)
    os.mkfifo(root / "fifo")
    for path in ("inner/cat.png", "out/secret.png", "fifo", "inner"):
        error = refusal(rooted, path)
        assert error.code is ErrorCode.INVALID_REQUEST
        assert str(root.parent) not in error.message
    assert refusal(rooted, "inner/dog.png").code is ErrorCode.FILE_NOT_FOUND


def test_a_worker_without_a_root_reads_no_path(loader: MediaLoader) -> None:
    assert refusal(loader, "inner/cat.png").code is ErrorCode.INVALID_REQUEST


def frames(folder: Path, *sizes: tuple[int, int]) -> list[LocalFile]:
    found = []
    for number, (width, height) in enumerate(sizes):
        path = folder / f"{number}.png"
        path.write_bytes(image_bytes(picture(width, height, number), "PNG"))
        found.append(LocalFile(path))
    return found


def test_images_become_the_frames_of_a_video_with_their_times(loader: MediaLoader, tmp_path: Path) -> None:
    video = loader.load_frames(frames(tmp_path, *[(40, 30)] * 3), [0.0, 0.5, 3.0], fps=1000, param=P)
    assert video.timestamps == (0.0, 0.5, 3.0)
    assert (video.frames == np.stack([picture(40, 30, number) for number in range(3)])).all()
    assert (video.total_frames, video.duration) == (3, 4.5)


def test_frames_are_scaled_down_together(loader: MediaLoader, tmp_path: Path) -> None:
    video = loader.load_frames(frames(tmp_path, (80, 60), (80, 60)), [0.0, 1.0], fps=1, param=P, max_pixels=1200)
    assert video.frames.shape == (2, 30, 40, 3)


def test_frames_of_two_sizes_are_refused_by_the_one_that_differs(loader: MediaLoader, tmp_path: Path) -> None:
    with pytest.raises(VlmqError, match=r"frame 1 has 30 x 40 pixels, the first 40 x 30") as caught:
        loader.load_frames(frames(tmp_path, (40, 30), (30, 40)), [0.0, 1.0], fps=1, param=P)
    assert (caught.value.code, caught.value.param) == (ErrorCode.VIDEO_INVALID, f"{P}.frames.1")


def test_a_frame_that_is_no_image_is_refused_by_its_place(loader: MediaLoader, tmp_path: Path) -> None:
    sources = frames(tmp_path, (40, 30), (40, 30))
    sources[1].path.write_bytes(b"GIF89a")
    with pytest.raises(VlmqError) as caught:
        loader.load_frames(sources, [0.0, 1.0], fps=1, param=P)
    assert (caught.value.code, caught.value.param) == (ErrorCode.IMAGE_INVALID, f"{P}.frames.1")
