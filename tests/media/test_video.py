"""Videos through the whole way: a stored file, a child, frames; compared with a full decode in the test."""

from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import pytest

from media.load import DecodedVideo, LocalFile, MediaLoader, VideoSampling
from tests.media.conftest import MakeLoader
from tests.media.samples import every_frame, moving, picture, repeat_gif, turn_quarter, write_sound, write_video
from vlmq.errors import ErrorCode, VlmqError

FAST_VP9 = {"g": "12", "deadline": "realtime", "cpu-used": "8"}
OPEN_GOP = {"g": "12", "x264-params": "open-gop=1:bframes=3:b-adapt=0:scenecut=0"}


@dataclass(frozen=True)
class Kind:
    container: str
    codec: str
    options: dict[str, str] = field(default_factory=lambda: {"g": "12"})
    container_options: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join([self.container, self.codec, *self.options.values(), *self.container_options.values()])


KINDS = [
    Kind("mp4", "libx264"),
    Kind("mp4", "libx264", OPEN_GOP),
    Kind("mp4", "libx264", container_options={"movflags": "frag_keyframe+empty_moov"}),
    Kind("mp4", "libx265", {"x265-params": "keyint=12:open-gop=1:bframes=3:log-level=none"}),
    Kind("mov", "mpeg4", {"g": "12", "bf": "2"}),
    Kind("mov", "mjpeg", {}),
    Kind("matroska", "libx264", OPEN_GOP),
    Kind("webm", "libvpx", {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "12", "cpu-used": "8"}),
    Kind("webm", "libvpx-vp9", FAST_VP9),
    Kind("avi", "libx264"),
    Kind("gif", "gif", {}),
]


def load(loader: MediaLoader, path: Path, sampling: VideoSampling) -> DecodedVideo:
    return loader.load_video(LocalFile(path), sampling, param="messages.0.content.1")


def refusal(loader: MediaLoader, path: Path, sampling: VideoSampling | None = None) -> VlmqError:
    with pytest.raises(VlmqError) as caught:
        load(loader, path, sampling or VideoSampling(num_frames=4))
    assert caught.value.param == "messages.0.content.1"
    assert str(path.parent) not in caught.value.message
    return caught.value


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of H.264 in MP4, 30 frames a second, with its index at the front."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    options = {"movflags": "faststart"}
    return write_video(path, "mp4", "libx264", moving(60), options={"g": "12"}, container_options=options)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_frames_are_those_of_a_full_decode(loader: MediaLoader, tmp_path: Path, kind: Kind) -> None:
    path = write_video(
        tmp_path / "video",
        kind.container,
        kind.codec,
        moving(60),
        options=kind.options,
        container_options=kind.container_options,
    )
    frames = every_frame(path)
    for wanted in (1, 2, 7, 60):
        video = load(loader, path, VideoSampling(num_frames=wanted))
        assert video.frame_indices == tuple(k * 60 // wanted for k in range(wanted))
        assert np.array_equal(video.frames, frames[list(video.frame_indices)])
        assert video.timestamps == pytest.approx([index / 30 for index in video.frame_indices], abs=0.006)
    assert video.total_frames == 60
    assert (video.duration, video.fps) == pytest.approx((2, 30), abs=0.02)


@pytest.mark.parametrize("kind", [KINDS[1], KINDS[6], KINDS[8]], ids=str)
def test_every_single_frame_can_be_sought(loader: MediaLoader, tmp_path: Path, kind: Kind) -> None:
    path = write_video(tmp_path / "video", kind.container, kind.codec, moving(20), options=kind.options)
    frames = every_frame(path)
    for index in range(20):
        at = index / 30
        video = load(loader, path, VideoSampling(num_frames=1, start=at, end=at + 0.01))
        assert video.frame_indices == (index,)
        assert np.array_equal(video.frames[0], frames[index])


def test_times_of_a_rate_that_varies_are_the_containers(loader: MediaLoader, tmp_path: Path) -> None:
    ticks = [0, 20, 40, 300, 320, 900, 1500, 1510, 1800, 2400]
    path = write_video(tmp_path / "video", "mp4", "libx264", moving(10), times=ticks, options={"g": "4"})
    video = load(loader, path, VideoSampling(num_frames=10))
    assert video.timestamps[0] == 0
    assert set(video.timestamps) <= {tick / 600 for tick in ticks}
    frames = every_frame(path)
    assert np.array_equal(video.frames, frames[list(video.frame_indices)])
    clip = load(loader, path, VideoSampling(num_frames=2, start=1.5, end=2.5))
    assert clip.timestamps[0] == 1.5
    assert clip.frame_indices[0] == 5


def test_a_video_that_does_not_begin_at_zero_is_counted_from_its_first_frame(
    loader: MediaLoader, tmp_path: Path
) -> None:
    ticks = [6000 + 20 * number for number in range(30)]
    path = write_video(tmp_path / "video", "matroska", "libx264", moving(30), times=ticks, options={"g": "10"})
    video = load(loader, path, VideoSampling(num_frames=3))
    assert video.timestamps == pytest.approx((0, 10 / 30, 20 / 30), abs=0.002)
    assert np.array_equal(video.frames, every_frame(path)[[0, 10, 20]])


def test_a_phones_video_stands_upright(loader: MediaLoader, tmp_path: Path) -> None:
    path = write_video(tmp_path / "video", "mp4", "libx264", moving(8))
    turn_quarter(path)
    video = load(loader, path, VideoSampling(num_frames=2))
    assert video.frames.shape == (2, 160, 120, 3)
    assert np.array_equal(video.frames[0], np.rot90(every_frame(path)[0], -1))


def test_frames_are_scaled_down_on_request(loader: MediaLoader, clip: Path) -> None:
    video = load(loader, clip, VideoSampling(num_frames=4, max_pixels=5000))
    _, height, width, _ = video.frames.shape
    assert 4500 < height * width <= 5000
    assert width / height == pytest.approx(160 / 120, rel=0.03)
    near = every_frame(clip)[0].mean(axis=(0, 1))
    assert video.frames[0].mean(axis=(0, 1)) == pytest.approx(near, abs=3)


def test_a_single_frame_is_a_video(loader: MediaLoader, tmp_path: Path) -> None:
    path = write_video(tmp_path / "video", "mp4", "libx264", moving(1))
    video = load(loader, path, VideoSampling(fps=2))
    assert (video.frame_indices, video.timestamps, video.total_frames) == ((0,), (0.0,), 1)
    assert video.fps > 0


def test_a_clip_behind_the_end_is_refused(loader: MediaLoader, clip: Path) -> None:
    error = refusal(loader, clip, VideoSampling(num_frames=2, start=10))
    assert error.code is ErrorCode.VIDEO_INVALID
    assert "lasts 2.000 s" in error.message


def test_more_frames_than_the_limit_are_refused(loader: MediaLoader, clip: Path) -> None:
    assert refusal(loader, clip, VideoSampling(num_frames=9, max_frames=8)).code is ErrorCode.INVALID_REQUEST


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


@pytest.mark.parametrize(
    "kind", [Kind("mp4", "libx264"), Kind("webm", "libvpx-vp9", FAST_VP9), Kind("avi", "mpeg4")], ids=str
)
@pytest.mark.parametrize("share", [0.95, 0.5, 0.05])
def test_a_truncated_video_is_refused_with_its_code(
    loader: MediaLoader, tmp_path: Path, kind: Kind, share: float
) -> None:
    path = write_video(tmp_path / "video", kind.container, kind.codec, moving(60), options=kind.options)
    error = refusal(loader, cut(path, share))
    assert error.code is ErrorCode.VIDEO_INVALID
    assert "truncated" in error.message


def test_a_cut_video_with_its_index_gives_the_frames_it_still_has(
    loader: MediaLoader, clip: Path, tmp_path: Path
) -> None:
    path = tmp_path / "video"
    path.write_bytes(clip.read_bytes())
    cut(path, 0.8)
    error = refusal(loader, path)
    assert error.code is ErrorCode.VIDEO_INVALID
    assert "truncated" in error.message
    video = load(loader, path, VideoSampling(num_frames=3, start=0, end=0.5))
    assert np.array_equal(video.frames, every_frame(clip)[list(video.frame_indices)])


def test_garbage_inside_is_refused_or_left_out(loader: MediaLoader, clip: Path, tmp_path: Path) -> None:
    data = bytearray(clip.read_bytes())
    middle = len(data) * 2 // 3
    data[middle : middle + 400] = np.random.default_rng(0).bytes(400)
    path = tmp_path / "video"
    path.write_bytes(data)
    try:
        assert load(loader, path, VideoSampling(num_frames=60)).frames.shape == (60, 120, 160, 3)
    except VlmqError as error:
        assert error.code is ErrorCode.VIDEO_INVALID


def test_sound_alone_is_refused_and_called_so(loader: MediaLoader, tmp_path: Path) -> None:
    error = refusal(loader, write_sound(tmp_path / "sound"))
    assert error.code is ErrorCode.VIDEO_INVALID
    assert error.message == "The video has sound but no pictures."


def test_a_video_without_frames_is_refused(loader: MediaLoader, tmp_path: Path) -> None:
    path = tmp_path / "video"
    with av.open(str(path), "w", format="mp4", options={"movflags": "empty_moov"}) as output:
        stream = output.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        output.start_encoding()
    error = refusal(loader, path)
    assert error.code is ErrorCode.VIDEO_INVALID
    assert "no frames" in error.message


def test_an_empty_file_is_refused(loader: MediaLoader, tmp_path: Path) -> None:
    path = tmp_path / "video"
    path.touch()
    assert refusal(loader, path).code is ErrorCode.VIDEO_INVALID


@pytest.mark.parametrize("data", [b"#EXTM3U\nhttp://127.0.0.1/a.ts\n", b"ffconcat version 1.0\nfile /etc/passwd\n"])
def test_a_playlist_is_no_video(loader: MediaLoader, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "video"
    path.write_bytes(data)
    assert refusal(loader, path).code is ErrorCode.UNSUPPORTED_MEDIA_TYPE


def test_a_codec_that_is_not_listed_is_refused(loader: MediaLoader, tmp_path: Path) -> None:
    path = write_video(tmp_path / "video", "avi", "asv1", moving(4))
    error = refusal(loader, path)
    assert error.code is ErrorCode.VIDEO_INVALID
    assert "codec" in error.message


def test_a_picture_that_is_too_large_is_refused(make_loader: MakeLoader, clip: Path) -> None:
    error = refusal(make_loader(max_video_pixels=10_000), clip)
    assert error.code is ErrorCode.VIDEO_TOO_LARGE
    assert "160 x 120" in error.message


def test_a_claim_of_a_huge_picture_is_refused(loader: MediaLoader, tmp_path: Path) -> None:
    path = write_video(tmp_path / "video", "avi", "rawvideo", moving(2))
    data = bytearray(path.read_bytes())
    sizes = data.index(b"strf") + 12
    data[sizes : sizes + 8] = (12000).to_bytes(4, "little") * 2
    path.write_bytes(data)
    assert refusal(loader, path).code is ErrorCode.VIDEO_TOO_LARGE


def test_ten_hours_are_refused(loader: MediaLoader, tmp_path: Path) -> None:
    ticks = [0, 600, 36_000 * 600]
    path = write_video(tmp_path / "video", "mp4", "mpeg4", moving(3), times=ticks)
    error = refusal(loader, path)
    assert error.code is ErrorCode.VIDEO_TOO_LARGE
    assert "14400 s" in error.message


def test_a_million_frames_a_second_are_refused(loader: MediaLoader, tmp_path: Path) -> None:
    path = write_video(tmp_path / "video", "mp4", "libx264", moving(20), rate=1_000_000)
    error = refusal(loader, path)
    assert error.code is ErrorCode.VIDEO_TOO_LARGE
    assert "frames a second" in error.message


def test_frames_beyond_the_memory_limit_are_too_large(make_loader: MakeLoader, tmp_path: Path) -> None:
    path = write_video(tmp_path / "video", "mp4", "libx264", [picture(640, 480)] * 120, options={"preset": "ultrafast"})
    loader = make_loader(decode_memory_bytes=320 * 2**20)
    error = refusal(loader, path, VideoSampling(num_frames=120))
    assert error.code is ErrorCode.VIDEO_TOO_LARGE
    assert load(loader, path, VideoSampling(num_frames=120, max_pixels=10_000)).frames.shape[0] == 120


def test_a_gif_of_ten_thousand_frames_is_sampled(loader: MediaLoader, tmp_path: Path) -> None:
    path = repeat_gif(tmp_path / "video", picture(16, 16), 10_000)
    video = load(loader, path, VideoSampling(num_frames=8))
    assert (video.frames.shape[0], video.total_frames) == (8, 10_000)
