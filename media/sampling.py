"""Which of a video's frames are looked at: arithmetic on display times, no bytes."""

from bisect import bisect_left, bisect_right

from media.jobs import VideoSampling


def choose_frames(times: list[float], duration: float, tick: float, sampling: VideoSampling) -> list[int]:
    """Indices, ascending and distinct, of the frames that `sampling` means; empty when the clip holds no frame.

    `times` are the display times of all frames in seconds from the first, ascending; each frame stays on until the
    next, the last until `duration`; `tick` is the precision of the container's clock.

    At a constant rate, n of m frames are those at floor(k * m / n), as transformers samples. Where the rate varies,
    frames are spread evenly in time, and one that stays on for several samples is taken once.
    """
    slack = min(tick, duration / len(times) / 4)
    first = bisect_left(times, (sampling.start or 0.0) - slack)
    last = len(times) if sampling.end is None else bisect_right(times, sampling.end + slack)
    count = last - first
    if count <= 0:
        return []
    begin = times[first]
    length = (times[last] if last < len(times) else duration) - begin
    if sampling.num_frames is not None:
        wanted = sampling.num_frames
    else:
        # Durations are rounded to ticks: 2.9999 s at 1 frame a second are three frames.
        wanted = min(max(1, int(length * (sampling.fps or 0.0) + 1e-3)), sampling.max_frames)
    wanted = min(wanted, count)
    step = length / count
    if all(abs(times[first + i] - begin - i * step) <= slack for i in range(count)):
        return [first + k * count // wanted for k in range(wanted)]
    shown = (bisect_right(times, begin + k * length / wanted + slack, first, last) - 1 for k in range(wanted))
    return sorted(set(shown))
