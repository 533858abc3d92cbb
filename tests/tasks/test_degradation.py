import numpy as np
import pytest

from media.load import DecodedImage, DecodedVideo
from tasks.conversation import Conversation
from tasks.degradation import MAX_STEPS, MIN_PIXELS, Ladder, half_the_frames, half_the_pixels, next_rung
from vlmq.errors import ErrorCode, VlmqError

OUT_OF_MEMORY = VlmqError(ErrorCode.OUT_OF_MEMORY, "The model ran out of memory on this prompt")


def video(frames: int, height: int = 128, width: int = 128) -> DecodedVideo:
    """Frame n is of the brightness n."""
    pixels = np.stack([np.full((height, width, 3), number, np.uint8) for number in range(frames)])
    indices = tuple(range(0, 10 * frames, 10))
    return DecodedVideo(pixels, tuple(index / 20 for index in indices), indices, 20.0, 10 * frames, frames / 2, "v")


def image(height: int = 256, width: int = 256) -> DecodedImage:
    return DecodedImage(np.full((height, width, 3), 200, np.uint8), "i")


def conversation(*media: DecodedImage | DecodedVideo) -> Conversation:
    made = Conversation([{"role": "user", "content": []}])
    for item in media:
        if isinstance(item, DecodedImage):
            made.images.append(item)
            entry = {"type": "image", "width": item.pixels.shape[1], "height": item.pixels.shape[0]}
        else:
            made.videos.append(item)
            entry = {"type": "video", "frame_timestamps_s": list(item.timestamps), "frame_indices": []}
        made.manifest.append(entry | {"param": f"messages.0.content.{len(made.manifest)}"})
    return made


@pytest.mark.parametrize(("frames", "kept"), [(8, [0, 2, 5, 7]), (5, [0, 2, 4]), (3, [0, 2]), (32, None)])
def test_half_the_frames_keep_their_order_times_and_ends(frames: int, kept: list[int] | None) -> None:
    given = video(frames)
    halved = half_the_frames(conversation(given))
    assert halved is not None
    (seen,) = halved.videos
    chosen = [int(frame[0, 0, 0]) for frame in seen.frames]
    assert kept is None or chosen == kept
    assert (len(chosen), chosen[0], chosen[-1]) == (-(-frames // 2), 0, frames - 1)
    assert chosen == sorted(chosen)
    assert seen.timestamps == tuple(given.timestamps[index] for index in chosen)
    assert seen.frame_indices == tuple(given.frame_indices[index] for index in chosen)
    assert (seen.duration, seen.total_frames, seen.fps) == (given.duration, given.total_frames, given.fps)


def test_two_frames_are_not_made_fewer() -> None:
    assert half_the_frames(conversation(video(2), video(1), image())) is None


@pytest.mark.parametrize(("height", "width"), [(256, 256), (1080, 1920), (20_000, 3), (91, 91)])
def test_half_the_pixels_keep_the_shape(height: int, width: int) -> None:
    halved = half_the_pixels(conversation(image(height, width), video(3, height, width)))
    assert halved is not None
    for pixels in (halved.images[0].pixels, halved.videos[0].frames[1]):
        assert pixels.shape[0] * pixels.shape[1] == pytest.approx(height * width / 2, rel=0.25)
        assert pixels.shape[0] / pixels.shape[1] == pytest.approx(height / width, rel=0.35)
        assert pixels.dtype == np.uint8
    assert int(halved.images[0].pixels[0, 0, 0]) == 200


def test_pictures_that_are_small_stay_as_they_are_beside_large_ones() -> None:
    halved = half_the_pixels(conversation(image(32, 32), image()))
    assert halved is not None
    assert [item.pixels.shape[:2] for item in halved.images] == [(32, 32), (181, 181)]
    assert half_the_pixels(conversation(image(64, 64))) is None


def test_the_manifest_says_what_is_seen() -> None:
    given = conversation(video(4), image(), video(8))
    _, fewer = next_rung(given, 0) or (None, given)
    _, smaller = next_rung(fewer, 1) or (None, given)
    assert [entry["param"] for entry in smaller.manifest] == [entry["param"] for entry in given.manifest]
    first, picture, second = smaller.manifest
    assert first["frame_timestamps_s"] == list(smaller.videos[0].timestamps)
    assert (picture["width"], picture["height"]) == (181, 181)
    assert second["frame_indices"] == list(smaller.videos[1].frame_indices)
    # The given one is as it was: it is what the record compares with.
    assert given.manifest[0]["frame_timestamps_s"] == list(given.videos[0].timestamps)


def test_a_ladder_takes_turns_down_to_its_floor_and_records_each_step() -> None:
    given = conversation(video(32, 512, 512))
    ladder = Ladder(given, allowed=True)
    for _ in range(MAX_STEPS):
        before = ladder.conversation.pixel_count()
        ladder.step_down(OUT_OF_MEMORY)
        assert ladder.conversation.pixel_count() == pytest.approx(before / 2, rel=0.01)
    record = ladder.record()
    assert record["reason"] == "out_of_memory"
    assert [step["what"] for step in record["steps"]] == ["frames", "pixels"] * 3
    assert record["steps"][0] == {"what": "frames", "from": 32, "to": 16}
    assert record["frames"] == {"given": 32, "seen": 4}
    assert record["pixels"] == {"given": 32 * 512 * 512, "seen": ladder.conversation.pixel_count()}
    with pytest.raises(VlmqError) as refusal:
        ladder.step_down(OUT_OF_MEMORY)
    assert (refusal.value.code, refusal.value.retryable) == (ErrorCode.OUT_OF_MEMORY, False)
    assert "4 frames" in refusal.value.message


def test_a_ladder_of_images_ends_where_they_would_show_nothing() -> None:
    ladder = Ladder(conversation(image(130, 130)), allowed=True)
    ladder.step_down(OUT_OF_MEMORY)
    ladder.step_down(OUT_OF_MEMORY)
    assert ladder.conversation.pixel_count() >= MIN_PIXELS
    with pytest.raises(VlmqError):
        ladder.step_down(OUT_OF_MEMORY)


def test_a_ladder_that_is_not_allowed_says_what_would_help() -> None:
    ladder = Ladder(conversation(video(8)), allowed=False)
    with pytest.raises(VlmqError) as refusal:
        ladder.step_down(OUT_OF_MEMORY)
    assert (refusal.value.code, refusal.value.retryable) == (ErrorCode.OUT_OF_MEMORY, False)
    assert "8 frames" in refusal.value.message
    assert "allow_degraded" in refusal.value.message


def test_without_media_there_is_nothing_to_leave_out() -> None:
    with pytest.raises(VlmqError) as refusal:
        Ladder(conversation(), allowed=True).step_down(OUT_OF_MEMORY)
    assert refusal.value is OUT_OF_MEMORY
