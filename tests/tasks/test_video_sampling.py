from typing import Any

import pytest

from engine.types import VideoDefaults
from media.load import VideoSampling
from tasks.video_sampling import SamplingRules, listed_times
from vlmq.served_model import ServedModel

QWEN = VideoDefaults(fps=2.0, min_frames=4, max_frames=768)
SMOL = VideoDefaults(num_frames=64, fps=1.0)


def rules(checkpoint: VideoDefaults = QWEN, limit: int = 1000, **served: Any) -> SamplingRules:
    return SamplingRules(ServedModel(checkpoint="x", **served), checkpoint, limit)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (rules().sampling({}, 10**9), VideoSampling(fps=2.0, min_frames=4, max_frames=768)),
        (rules(SMOL).sampling({}, 10**9), VideoSampling(num_frames=64)),
        (rules(VideoDefaults()).sampling({}, 10**9), VideoSampling(num_frames=8)),
        (rules(default_num_frames=6).sampling({}, 10**9), VideoSampling(num_frames=6, max_frames=768)),
        (rules(max_frames=5).sampling({"fps": 1.0}, 10**9), VideoSampling(fps=1.0, max_frames=5)),
        (rules(SMOL, max_frames=5).sampling({}, 10**9), VideoSampling(num_frames=5, max_frames=5)),
        (rules(limit=9).sampling({"num_frames": 3}, 10**9), VideoSampling(num_frames=3, max_frames=9)),
        (rules(VideoDefaults()).sampling({"fps": 3.0}, 10**9), VideoSampling(fps=3.0)),
    ],
)
def test_the_job_counts_before_the_operator_and_the_operator_before_the_checkpoint(
    found: VideoSampling, expected: VideoSampling
) -> None:
    names = ("num_frames", "fps", "min_frames", "max_frames")
    assert [getattr(found, name) for name in names] == [getattr(expected, name) for name in names]


def test_pixels_are_shared_among_the_frames_unless_the_job_wants_fewer() -> None:
    assert rules().sampling({"frame_indices": [1, 2, 3, 4]}, 4000).max_pixels == 1000
    assert rules().sampling({"timestamps": [1.0, 2.0], "max_pixels": 50}, 4000).max_pixels == 50
    assert rules().sampling({"num_frames": 4, "max_pixels": 5000}, 4000).max_pixels == 1000


def test_a_list_of_frames_counts_as_24_a_second_unless_it_says_otherwise() -> None:
    three: list[dict[str, Any]] = [{}, {}, {}]
    assert listed_times({"frames": three}) == ([0.0, 1 / 24, 2 / 24], 24.0)
    assert listed_times({"frames": three, "fps": 2.0}) == ([0.0, 0.5, 1.0], 2.0)
    assert listed_times({"frames": three, "timestamps": [0.0, 0.5, 1.0]}) == ([0.0, 0.5, 1.0], 2.0)
    # A number is a millisecond then, so that a model that computes times from numbers prints these.
    assert listed_times({"frames": three, "timestamps": [0.0, 0.5, 3.2]}) == ([0.0, 0.5, 3.2], 1000.0)


@pytest.mark.parametrize("times", [[0.0, 5e-324], [1e-320, 1e-310], [0.0]])
def test_times_too_close_for_a_rate_are_counted_in_milliseconds(times: list[float]) -> None:
    assert listed_times({"frames": [{}] * len(times), "timestamps": times}) == (times, 1000.0)
