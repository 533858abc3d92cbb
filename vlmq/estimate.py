"""How long a generation will take, by those before it."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Sample:
    """A generation that is over: seconds to its first token and to its end, and how many tokens it had."""

    first_token_s: float
    generation_s: float
    tokens: int


def seconds_for(samples: Sequence[Sample], tokens: int) -> float | None:
    """Seconds for so many tokens, None without samples; medians, so that one odd job changes little."""
    if not samples:
        return None
    first = median(sample.first_token_s for sample in samples)
    longer = [sample for sample in samples if sample.tokens > 1]
    if not longer:
        return first
    each = median((sample.generation_s - sample.first_token_s) / (sample.tokens - 1) for sample in longer)
    return first + max(each, 0.0) * (tokens - 1)
