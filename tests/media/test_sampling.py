import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.jobs import VideoSampling
from media.sampling import choose_frames
from vlmq.errors import ErrorCode, VlmqError

TICK = 1 / 15360


def steady(count: int, rate: float, digits: int = 9) -> tuple[list[float], float]:
    return [round(number / rate, digits) for number in range(count)], round(count / rate, digits)


@given(st.integers(1, 500), st.integers(1, 128), st.sampled_from([10, 23.976, 25, 29.97, 30, 60]), st.booleans())
def test_at_a_constant_rate_frames_are_those_that_transformers_takes(
    total: int, wanted: int, rate: float, milliseconds: bool
) -> None:
    times, duration = steady(total, rate, 3 if milliseconds else 9)
    chosen = choose_frames(times, duration, 0.001 if milliseconds else TICK, VideoSampling(num_frames=wanted))
    taken = min(wanted, total)
    assert chosen == [k * total // taken for k in range(taken)]


@given(
    st.lists(st.floats(0.001, 5), min_size=1, max_size=60),
    st.one_of(st.integers(1, 128), st.floats(0.01, 240)),
    st.floats(0, 20),
    st.one_of(st.none(), st.floats(0.01, 40)),
)
def test_chosen_frames_ascend_and_lie_in_the_clip(
    gaps: list[float], wanted: int | float, start: float, length: float | None
) -> None:
    times = [math.fsum(gaps[:number]) for number in range(len(gaps))]
    end = None if length is None else start + length
    sampling = VideoSampling(
        num_frames=wanted if isinstance(wanted, int) else None,
        fps=None if isinstance(wanted, int) else wanted,
        start=start,
        end=end,
    )
    chosen = choose_frames(times, math.fsum(gaps), TICK, sampling)
    assert chosen == sorted(set(chosen))
    assert len(chosen) <= sampling.max_frames
    assert all(start - TICK <= times[index] <= (end or math.inf) + TICK for index in chosen)
    inside = [time for time in times if start + TICK < time < (end or math.inf) - TICK]
    assert chosen or not inside


def test_a_rate_of_one_takes_a_frame_a_second() -> None:
    times, duration = steady(300, 30)
    assert choose_frames(times, duration, TICK, VideoSampling(fps=1)) == [30 * second for second in range(10)]


def test_a_rate_is_bounded_by_max_frames_over_the_whole_clip() -> None:
    times, duration = steady(300, 30)
    assert choose_frames(times, duration, TICK, VideoSampling(fps=30, max_frames=3)) == [0, 100, 200]


def test_a_rate_below_one_frame_in_the_clip_takes_one() -> None:
    times, duration = steady(30, 30)
    assert choose_frames(times, duration, TICK, VideoSampling(fps=0.1)) == [0]


def test_a_clip_is_sampled_alone() -> None:
    times, duration = steady(300, 30)
    sampling = VideoSampling(num_frames=3, start=2.0, end=4.99)
    assert choose_frames(times, duration, TICK, sampling) == [60, 90, 120]


def test_a_clip_behind_the_end_holds_no_frame() -> None:
    times, duration = steady(30, 30)
    assert choose_frames(times, duration, TICK, VideoSampling(num_frames=3, start=5)) == []


def test_where_the_rate_varies_frames_are_even_in_time() -> None:
    # Ten frames in the first second, then one that stays on for nine.
    times = [number / 10 for number in range(10)] + [1.0]
    assert choose_frames(times, 10.0, TICK, VideoSampling(num_frames=5)) == [0, 10]


@pytest.mark.parametrize("sampling", [VideoSampling(num_frames=4), VideoSampling(num_frames=99), VideoSampling(fps=99)])
def test_a_video_of_fewer_frames_than_are_asked_for_is_seen_whole_also_where_its_rate_varies(
    sampling: VideoSampling,
) -> None:
    assert choose_frames([0.0, 0.1, 0.3, 0.35], 0.383, TICK, sampling) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "sampling",
    [
        VideoSampling(),
        VideoSampling(num_frames=4, fps=1.0),
        VideoSampling(num_frames=0),
        VideoSampling(num_frames=129),
        VideoSampling(fps=0),
        VideoSampling(fps=math.nan),
        VideoSampling(fps=math.inf),
        VideoSampling(fps=1, start=-1),
        VideoSampling(fps=1, start=3, end=3),
        VideoSampling(fps=1, start=math.nan),
        VideoSampling(num_frames=1, frame_indices=(1,)),
        VideoSampling(frame_indices=()),
        VideoSampling(frame_indices=(2, 1)),
        VideoSampling(frame_indices=(-1,)),
        VideoSampling(frame_indices=tuple(range(129))),
        VideoSampling(timestamps=(1.0, 1.0)),
        VideoSampling(timestamps=(math.nan,)),
        VideoSampling(timestamps=(1.0,), start=0.5),
    ],
)
def test_a_sampling_that_means_nothing_is_refused(sampling: VideoSampling) -> None:
    with pytest.raises(VlmqError) as caught:
        sampling.check("messages.0.content.1")
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert caught.value.param == "messages.0.content.1"


def test_frames_named_by_number_or_by_time_are_taken_as_named() -> None:
    times = [0.0, 0.1, 0.5, 0.6, 2.0]
    assert choose_frames(times, 2.1, TICK, VideoSampling(frame_indices=(1, 4))) == [1, 4]
    # What is shown at 0.4 s came at 0.1 s; two times within one frame are that frame.
    assert choose_frames(times, 2.1, TICK, VideoSampling(timestamps=(0.4, 0.45, 0.5, 2.1))) == [1, 2, 4]


@pytest.mark.parametrize("sampling", [VideoSampling(frame_indices=(0, 5)), VideoSampling(timestamps=(0.0, 2.2))])
def test_frames_that_the_video_does_not_have_are_refused(sampling: VideoSampling) -> None:
    with pytest.raises(VlmqError) as refusal:
        choose_frames([0.0, 0.1, 0.5, 0.6, 2.0], 2.1, TICK, sampling)
    assert refusal.value.code is ErrorCode.INVALID_REQUEST


def test_a_checkpoints_fewest_frames_hold_where_there_are_as_many() -> None:
    times, duration = steady(30, 30)
    assert len(choose_frames(times, duration, TICK, VideoSampling(fps=1, min_frames=4))) == 4
    assert len(choose_frames(times[:2], times[2], TICK, VideoSampling(fps=1, min_frames=4))) == 2
