"""Videos that cannot be taken, and the code and words that each gets."""

from pathlib import Path

import av
import numpy as np
import pytest

from media.load import DecodedVideo, LocalFile, MediaLoader, VideoSampling
from tests.media.bombs import avi_claiming
from tests.media.conftest import MakeLoader
from tests.media.samples import every_frame, moving, picture, repeat_gif, write_sound, write_video
from vlmq.errors import ErrorCode, VlmqError


def load(loader: MediaLoader, path: Path, sampling: VideoSampling) -> DecodedVideo:
    return loader.load_video(LocalFile(path), sampling, param="messages.0.content.1")


def refusal(loader: MediaLoader, path: Path, sampling: VideoSampling | None = None) -> VlmqError:
    with pytest.raises(VlmqError) as caught:
        load(loader, path, sampling or VideoSampling(num_frames=4))
    assert caught.value.param == "messages.0.content.1"
    assert str(path.parent) not in caught.value.message
    return caught.value


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


@pytest.mark.parametrize(("container", "codec"), [("mp4", "libx264"), ("webm", "libvpx"), ("avi", "mpeg4")])
@pytest.mark.parametrize("share", [0.95, 0.5, 0.05])
def test_a_truncated_video_is_refused_with_its_code(
    loader: MediaLoader, tmp_path: Path, container: str, codec: str, share: float
) -> None:
    path = write_video(tmp_path / "video", container, codec, moving(40), options={"g": "12"})
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


def test_a_song_with_a_cover_is_sound_alone(loader: MediaLoader, tmp_path: Path) -> None:
    error = refusal(loader, write_sound(tmp_path / "song", moving(1), cover=True))
    assert error.code is ErrorCode.VIDEO_INVALID
    assert error.message == "The video has sound but no pictures."


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_a_video_that_begins_without_its_only_key_frame_is_refused(
    loader: MediaLoader, tmp_path: Path, container: str
) -> None:
    whole = write_video(tmp_path / "whole", "mp4", "libx264", moving(40), options={"g": "1000", "sc_threshold": "0"})
    with av.open(str(whole)) as source, av.open(str(tmp_path / "video"), "w", format=container) as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if number and packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
    error = refusal(loader, tmp_path / "video")
    assert error.code is ErrorCode.VIDEO_INVALID
    assert "damaged" in error.message


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
    assert refusal(loader, avi_claiming(tmp_path / "video", 12_000)).code is ErrorCode.VIDEO_TOO_LARGE


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
    path = write_video(
        tmp_path / "video", "mp4", "libx264", [picture(1280, 1152)] * 128, options={"preset": "ultrafast"}
    )
    # Less than all frames, and with room for the 64 MiB of address space that each decoding thread may reserve.
    loader = make_loader(decode_memory_bytes=512 * 2**20)
    error = refusal(loader, path, VideoSampling(num_frames=128))
    assert error.code is ErrorCode.VIDEO_TOO_LARGE
    assert load(loader, path, VideoSampling(num_frames=128, max_pixels=10_000)).frames.shape[0] == 128


def test_a_gif_of_ten_thousand_frames_is_sampled(loader: MediaLoader, tmp_path: Path) -> None:
    path = repeat_gif(tmp_path / "video", picture(16, 16), 10_000)
    video = load(loader, path, VideoSampling(num_frames=8))
    assert (video.frames.shape[0], video.total_frames) == (8, 10_000)
