"""What two fields of `generation` cannot mean together, as far as that can be told without the checkpoint."""

from collections.abc import Iterator
from typing import Any

from vlmq.generation_limits import MIN_TEMPERATURE, SAMPLING


def disagreements(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The fields that cannot stand beside the others, and what they must be; of `values`, none is None."""
    yield from _about_chance(values)
    yield from _about_length(values)
    yield from _about_beams(values)
    if values.get("top_logprobs") and not values.get("logprobs"):
        yield "top_logprobs", "Is for logprobs; name logprobs: true as well"
    forced = values.get("forced_eos_token_id")
    if forced and set(forced) <= set(values.get("suppress_tokens", ())):
        yield "forced_eos_token_id", "Must not be forbidden by suppress_tokens"


def _about_chance(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    sample, temperature = values.get("do_sample"), values.get("temperature")
    if sample and temperature == 0:
        yield "temperature", "Must be above 0 when do_sample is true"
    if temperature and temperature < MIN_TEMPERATURE:
        yield "temperature", f"Must be 0, or at least {MIN_TEMPERATURE}"
    if sample is not False:
        return
    for name, nothing in SAMPLING.items():
        if name in values and values[name] != nothing and not (name == "temperature" and temperature == 0):
            yield name, "Is for sampling; name do_sample: true, or leave one of them out"


def _about_length(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    least = values.get("min_new_tokens", 0)
    if least > values.get("max_new_tokens", least):
        yield "min_new_tokens", "Must not be above max_new_tokens"
    decay = values.get("exponential_decay_length_penalty")
    if decay and decay[0] < least:
        yield "exponential_decay_length_penalty", "Must not start before min_new_tokens"


def _about_beams(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    beams, texts = values.get("num_beams", 1), values.get("num_return_sequences", 1)
    if beams > 1:
        if texts > beams:
            yield "num_return_sequences", "Must not be above num_beams"
        if values.get("logprobs"):
            yield "logprobs", "Cannot be had with num_beams"
        return
    if values.get("early_stopping"):
        yield "early_stopping", "Is for beams; name num_beams as well"
    if values.get("length_penalty", 1) != 1:
        yield "length_penalty", "Is for beams; name num_beams as well"
    if texts > 1 and (values.get("do_sample") is False or values.get("temperature") == 0):
        yield "num_return_sequences", "Must be 1 without sampling or beams: all texts would be the same"
