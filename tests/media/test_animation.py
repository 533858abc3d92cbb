"""Animated PNG and WebP as videos: which frames, when, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from media.load import DecodedVideo, LocalFile, MediaLoader, VideoSampling
from tests.media.bombs import animation, canvas, endless_animation
from tests.media.conftest import MakeLoader
from tests.media.samples import image_bytes, moving, picture, undone_patches
from vlmq.errors import ErrorCode, VlmqError
from vlmq.sniff import is_still
from vlmq.video_backends import VideoBackend

KINDS = ["PNG", "WEBP"]
VARYING = [50, 100, 200, 300, 40, 50, 60, 500]
TIMES = [0.0, 0.05, 0.15, 0.35, 0.65, 0.69, 0.74, 0.8]
P = "messages.0.content.0"


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def load(
    loader: MediaLoader, path: Path, data: bytes, sampling: VideoSampling, backend: VideoBackend = "pyav"
) -> DecodedVideo:
    path.write_bytes(data)
    return loader.load_video(LocalFile(path), sampling, param=P, backend=backend)


def refusal(loader: MediaLoader, path: Path, data: bytes, sampling: VideoSampling | None = None) -> VlmqError:
    with pytest.raises(VlmqError) as caught:
        load(loader, path, data, sampling or VideoSampling(num_frames=2))
    assert caught.value.param == P
    return caught.value


@pytest.mark.parametrize(
    ("sampling", "indices"),
    [
        (VideoSampling(frame_indices=(0, 2, 7)), (0, 2, 7)),
        (VideoSampling(timestamps=(0.04, 0.2, 1.3)), (0, 2, 7)),
        (VideoSampling(num_frames=3), (0, 3, 7)),
        (VideoSampling(num_frames=8, start=0.36, end=0.75), (4, 5, 6)),
        (VideoSampling(fps=4, start=0.1, end=0.7), (2, 3)),
    ],
)
def test_frames_are_chosen_by_the_times_that_the_file_says(
    loader: MediaLoader, tmp_path: Path, kind: str, sampling: VideoSampling, indices: tuple[int, ...]
) -> None:
    frames = moving(8, 48, 32)
    video = load(loader, tmp_path / "a", animation(kind, frames, VARYING), sampling)
    assert video.frame_indices == indices
    assert video.timestamps == tuple(TIMES[index] for index in indices)
    assert np.array_equal(video.frames, np.stack([frames[index] for index in indices]))
    assert video.total_frames == 8
    assert (video.duration, video.fps) == pytest.approx((1.3, 8 / 1.3))


def test_the_same_animation_is_sampled_as_a_gif_is(loader: MediaLoader, tmp_path: Path, kind: str) -> None:
    frames = [np.full((32, 48, 3), shade, np.uint8) for shade in (0, 255) * 6]
    sampling = VideoSampling(num_frames=5)
    gif = load(loader, tmp_path / "gif", animation("GIF", frames, [100] * 12), sampling)
    video = load(loader, tmp_path / "a", animation(kind, frames, [100] * 12), sampling)
    assert video.frame_indices == gif.frame_indices
    assert video.timestamps == pytest.approx(gif.timestamps)
    assert video.duration == pytest.approx(gif.duration)


def test_frames_are_scaled_down_and_over_white(loader: MediaLoader, tmp_path: Path, kind: str) -> None:
    clear = [Image.new("RGBA", (40, 30), (shade, 0, 0, 0)) for shade in (0, 255)]
    clear[1].paste((0, 0, 0, 255), (0, 0, 40, 15))
    data = image_bytes(clear[0], kind, save_all=True, append_images=clear[1:], duration=100, lossless=True)
    video = load(loader, tmp_path / "a", data, VideoSampling(num_frames=2, max_pixels=300))
    assert video.frames.shape == (2, 15, 20, 3)
    assert video.frames[0].min() == 255
    assert (video.frames[1, 0, 0].max(), video.frames[1, 14, 0].min()) == (0, 255)


def test_a_picture_for_those_who_show_no_animation_is_no_frame(loader: MediaLoader, tmp_path: Path) -> None:
    frames = moving(3, 48, 32)
    others = [Image.fromarray(frame) for frame in frames]
    cover = Image.fromarray(picture(48, 32, seed=5))
    data = image_bytes(cover, "PNG", save_all=True, append_images=others, default_image=True, duration=100)
    video = load(loader, tmp_path / "a", data, VideoSampling(num_frames=3))
    assert np.array_equal(video.frames, np.stack(frames))
    assert video.total_frames == 3


@pytest.mark.parametrize("indices", [(0, 1, 2, 3), (3,), (1, 3)])
def test_what_a_frame_asks_to_be_undone_is_gone_from_the_next_whichever_are_seen(
    loader: MediaLoader, tmp_path: Path, indices: tuple[int, ...]
) -> None:
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    data = undone_patches(32, 16, colors)
    video = load(loader, tmp_path / "a", data, VideoSampling(frame_indices=indices))
    for index, frame in zip(indices, video.frames, strict=True):
        expected = np.full((16, 32, 3), 90, np.uint8)
        if index:
            expected[:8, 8 * (index - 1) : 8 * index] = colors[index - 1]
        assert np.array_equal(frame, expected)


def test_the_first_frame_is_still_the_image(loader: MediaLoader, tmp_path: Path, kind: str) -> None:
    frames = moving(3, 48, 32)
    (tmp_path / "a").write_bytes(animation(kind, frames, [100] * 3))
    assert np.array_equal(loader.load_image(LocalFile(tmp_path / "a"), param=P).pixels, frames[0])


# The second is so long that the head ends before the pixels.
@pytest.mark.parametrize("profile", [None, np.random.default_rng(0).bytes(8000)], ids=["plain", "profile"])
def test_a_still_image_is_no_video(loader: MediaLoader, tmp_path: Path, kind: str, profile: bytes | None) -> None:
    error = refusal(loader, tmp_path / "a", image_bytes(picture(48, 32), kind, icc_profile=profile))
    assert error.code is ErrorCode.UNSUPPORTED_MEDIA_TYPE
    assert "a still image" in error.message


def test_an_animation_is_told_from_its_first_bytes(kind: str) -> None:
    assert not is_still(animation(kind, moving(2, 16, 16), [100, 100])[:4096])
    assert is_still(image_bytes(picture(16, 16), kind)[:4096])
    assert not is_still(b"GIF89a")
    assert not is_still(b"")


@pytest.mark.parametrize("share", [0.95, 0.5, 0.2])
def test_a_truncated_animation_is_refused(loader: MediaLoader, tmp_path: Path, kind: str, share: float) -> None:
    data = animation(kind, moving(8, 48, 32), VARYING)
    error = refusal(loader, tmp_path / "a", data[: int(len(data) * share)])
    assert error.code is ErrorCode.VIDEO_INVALID
    assert "truncated" in error.message


def test_frames_that_are_announced_and_missing_are_missed(loader: MediaLoader, tmp_path: Path) -> None:
    data = animation("PNG", moving(3, 48, 32), [100] * 3)
    count = data.index(b"acTL") + 4
    error = refusal(loader, tmp_path / "a", data[:count] + (10_000).to_bytes(4, "big") + data[count + 4 :])
    assert error.code is ErrorCode.VIDEO_INVALID
    assert "3 of 10000 frames" in error.message


def test_damage_inside_is_refused_or_left_out(loader: MediaLoader, tmp_path: Path, kind: str) -> None:
    whole = animation(kind, moving(6, 48, 32), [100] * 6)
    random = np.random.default_rng(3)
    for _ in range(30):
        data = bytearray(whole)
        at = int(random.integers(40, len(data) - 20))
        data[at : at + 20] = random.bytes(20)
        try:
            load(loader, tmp_path / "a", bytes(data), VideoSampling(num_frames=6, max_frames=6))
        except VlmqError as error:
            assert error.code in (
                ErrorCode.VIDEO_INVALID,
                ErrorCode.VIDEO_TOO_LARGE,
                ErrorCode.UNSUPPORTED_MEDIA_TYPE,
            ), error.message


def test_ten_thousand_frames_are_sampled(loader: MediaLoader, tmp_path: Path, kind: str) -> None:
    data = endless_animation(kind, 10_000)
    video = load(loader, tmp_path / "a", data, VideoSampling(num_frames=8))
    assert (video.frames.shape[0], video.total_frames) == (8, 10_000)
    assert video.duration == pytest.approx(1000)


def test_ten_hours_are_refused(loader: MediaLoader, tmp_path: Path, kind: str) -> None:
    error = refusal(loader, tmp_path / "a", endless_animation(kind, 1000, 36_000))
    assert error.code is ErrorCode.VIDEO_TOO_LARGE
    assert "36000 s" in error.message


def test_frames_without_a_time_are_shown_as_players_do(loader: MediaLoader, tmp_path: Path, kind: str) -> None:
    video = load(loader, tmp_path / "a", endless_animation(kind, 20, 0), VideoSampling(num_frames=20))
    assert video.duration == pytest.approx(2)


def test_a_canvas_beyond_the_limit_is_refused_before_it_is_allocated(loader: MediaLoader, tmp_path: Path) -> None:
    error = refusal(loader, tmp_path / "a", canvas(animation("WEBP", moving(2, 16, 16), [100] * 2), 16_384))
    assert error.code is ErrorCode.VIDEO_TOO_LARGE
    assert "16384 x 16384" in error.message


def test_frames_beyond_the_memory_limit_are_too_large(make_loader: MakeLoader, tmp_path: Path, kind: str) -> None:
    loader = make_loader(decode_memory_bytes=256 * 2**20)
    data = animation(kind, [picture(640, 480, seed) for seed in (0, 1)] * 60, [40] * 120)
    error = refusal(loader, tmp_path / "a", data, VideoSampling(num_frames=120))
    assert error.code is ErrorCode.VIDEO_TOO_LARGE
    small = load(loader, tmp_path / "a", data, VideoSampling(num_frames=120, max_pixels=10_000))
    assert small.frames.shape[0] == 120
    # Those in between are decoded, and not kept.
    assert load(loader, tmp_path / "a", data, VideoSampling(frame_indices=(0, 119))).frames.shape[0] == 2


def test_another_backend_is_refused_by_name(loader: MediaLoader, tmp_path: Path, kind: str) -> None:
    with pytest.raises(VlmqError) as caught:
        load(loader, tmp_path / "a", animation(kind, moving(2), [100] * 2), VideoSampling(num_frames=2), "opencv")
    assert caught.value.code is ErrorCode.UNSUPPORTED_PARAMETER
