"""Which of a video's frames are looked at: arithmetic on display times, no bytes."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from media.jobs import VideoSampling
from vlmq.errors import ErrorCode, VlmqError


def choose_frames(times: Sequence[float], duration: float, tick: float, sampling: VideoSampling) -> list[int]:
    """Indices, ascending and distinct, of the frames that `sampling` means; empty when the clip holds no frame.

    `times` are the display times of all frames in seconds from the first, ascending; each frame stays on until the
    next, the last until `duration`; `tick` is the precision of the container's clock.

    At a constant rate, n of m frames are those at floor(k * m / n), as transformers samples. Where the rate varies,
    frames are spread evenly in time, and one that stays on for several samples is taken once.

    Raises:
        VlmqError: `invalid_request` for an index or a time that the video does not have.
    """
    slack = min(tick, duration / len(times) / 4)
    if sampling.frame_indices is not None:
        return _numbered(sampling.frame_indices, len(times))
    if sampling.timestamps is not None:
        return _shown_at(sampling.timestamps, times, duration, slack)
    first = bisect_left(times, (sampling.start or 0.0) - slack)
    last = len(times) if sampling.end is None else bisect_right(times, sampling.end + slack)
    count = last - first
    if count <= 0:
        return []
    begin = times[first]
    length = (times[last] if last < len(times) else duration) - begin
    if sampling.num_frames is not None:
        wanted = sampling.num_frames
        if wanted >= count:
            return list(range(first, last))
    else:
        # Durations are rounded to ticks: 2.9999 s at 1 frame a second are three frames.
        wanted = min(max(sampling.min_frames, int(length * (sampling.fps or 0.0) + 1e-3)), sampling.max_frames)
    step = length / count
    if all(abs(times[first + i] - begin - i * step) <= slack for i in range(count)):
        wanted = min(wanted, count)
        return [first + k * count // wanted for k in range(wanted)]
    # More moments than there are frames find those that pass quickly.
    shown = (bisect_right(times, begin + k * length / wanted + slack, first, last) - 1 for k in range(wanted))
    return sorted(set(shown))


def _numbered(indices: Sequence[int], total: int) -> list[int]:
    beyond = [index for index in indices if index >= total]
    if beyond:
        message = f"The video has {total} frames, counted from 0; there is no frame {beyond[0]}."
        raise VlmqError(ErrorCode.INVALID_REQUEST, message)
    return list(indices)


def _shown_at(moments: Sequence[float], times: Sequence[float], duration: float, slack: float) -> list[int]:
    beyond = [moment for moment in moments if moment > duration + slack]
    if beyond:
        message = f"The video lasts {duration:.3f} s; nothing is shown at {beyond[0]:.3f} s."
        raise VlmqError(ErrorCode.INVALID_REQUEST, message)
    return sorted({bisect_right(times, moment + slack) - 1 for moment in moments})
