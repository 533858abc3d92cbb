"""Videos through the whole way: a stored file, a child, frames; compared with a full decode in the test."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import pytest
from av.packet import Packet
from av.video.stream import VideoStream

from media.frame_reader import FrameReader
from media.load import DecodedVideo, LocalFile, MediaLoader, VideoSampling
from media.timeline import demuxed_timeline, indexed_timeline
from tests.media.samples import Pixels, every_frame, moving, turn, turn_quarter, write_sound, write_video
from vlmq.sniff import MediaType
from vlmq.video_backends import VideoBackend

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
    Kind("mp4", "libsvtav1", {"g": "12", "preset": "12"}),
    Kind("gif", "gif", {}),
]


def load(loader: MediaLoader, path: Path, sampling: VideoSampling) -> DecodedVideo:
    return loader.load_video(LocalFile(path), sampling, param="messages.0.content.1")


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


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((-1, 0, 0, -1), lambda pixels: pixels[::-1, ::-1]),
        ((0, -1, 1, 0), lambda pixels: np.rot90(pixels, 1)),
        ((-1, 0, 0, 1), lambda pixels: pixels[:, ::-1]),
        ((1, 0, 0, -1), lambda pixels: pixels[::-1]),
        ((0, 1, 1, 0), lambda pixels: pixels.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1)),
    ],
    ids=["half", "anticlockwise", "mirrored", "flipped", "transposed", "transversed"],
)
@pytest.mark.parametrize("backend", ["pyav", "opencv", "decord"])
def test_a_video_that_is_turned_or_mirrored_is_shown_as_players_do(
    loader: MediaLoader,
    tmp_path: Path,
    backend: VideoBackend,
    matrix: tuple[int, int, int, int],
    shown: Callable[[Pixels], Pixels],
) -> None:
    path = write_video(tmp_path / "video", "mp4", "libx264", moving(8))
    stored = every_frame(path)
    turn(path, *matrix)
    video = loader.load_video(LocalFile(path), VideoSampling(frame_indices=(0, 5)), param="video", backend=backend)
    for frame, pixels in zip(video.frames, stored[[0, 5]], strict=True):
        assert frame.shape == shown(pixels).shape
        assert np.abs(frame.astype(int) - shown(pixels)).mean() < 1


def test_a_video_that_was_written_without_its_length_is_taken(loader: MediaLoader, tmp_path: Path) -> None:
    written = write_video(tmp_path / "file", "mp4", "libx264", moving(40), options={"g": "10"})
    # Through a pipe, as recorders of streams do: there is no way back to write how long it was.
    with (
        av.open(str(written)) as source,
        (tmp_path / "video").open("wb") as file,
        av.open(_Pipe(file), "w", format="matroska") as output,
    ):
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
    with av.open(str(tmp_path / "video")) as container:
        assert container.duration is None
    video = load(loader, tmp_path / "video", VideoSampling(num_frames=4))
    assert (video.frame_indices, video.total_frames) == ((0, 10, 20, 30), 40)
    assert video.duration == pytest.approx(40 / 30, abs=0.01)
    assert np.array_equal(video.frames, every_frame(written)[[0, 10, 20, 30]])


class _Pipe:
    def __init__(self, file: BinaryIO) -> None:
        self.write = file.write


def test_sound_beside_the_pictures_is_left_aside(loader: MediaLoader, tmp_path: Path) -> None:
    path = write_sound(tmp_path / "video", moving(30))
    video = load(loader, path, VideoSampling(num_frames=3))
    assert (video.frame_indices, video.total_frames) == ((0, 10, 20), 30)
    assert np.array_equal(video.frames, every_frame(path)[[0, 10, 20]])


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


class CountingReader(FrameReader):
    decoded = 0

    def _prepare(self, packet: "Packet[VideoStream]") -> None:
        self.decoded += 1
        super()._prepare(packet)


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("kind", [KINDS[0], KINDS[1]], ids=str)
def test_a_late_frame_costs_its_group_of_pictures_alone(tmp_path: Path, kind: Kind, indexed: bool) -> None:
    path = write_video(tmp_path / "video", kind.container, kind.codec, moving(120), options=kind.options)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        timeline = indexed_timeline(stream) if indexed else demuxed_timeline(container, stream, MediaType.MP4)
        assert timeline is not None
        reader = CountingReader(container, stream, timeline)
        assert len(list(reader.read([100, 118]))) == 2
    # Two groups of twelve, and what the decoder holds back before it gives a frame.
    assert reader.decoded < 50
