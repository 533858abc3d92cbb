"""Generation parameters checked, and their hints resolved, before anything runs."""

import math
from dataclasses import replace

from engine.generation_parameters import GenerationParameters
from vlmq.errors import ErrorCode, VlmqError
from vlmq.generation_limits import (
    MAX_SEED,
    MAX_SEQUENCES,
    MAX_TOP_LOGPROBS,
    MIN_PENALTY,
    MIN_TEMPERATURE,
    SAMPLING,
)

_AT_LEAST = {
    "max_new_tokens": 1,
    "min_new_tokens": 0,
    "top_k": 0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "repetition_penalty": MIN_PENALTY,
    "encoder_repetition_penalty": MIN_PENALTY,
}
_UP_TO = {"num_beams": (1, MAX_SEQUENCES), "num_return_sequences": (1, MAX_SEQUENCES), "min_p": (0, 1)}
_ABOVE_0_UP_TO_1 = ("top_p", "top_h", "typical_p")
_FROM_0_BELOW_1 = ("epsilon_cutoff", "eta_cutoff")


def check_parameters(parameters: GenerationParameters) -> GenerationParameters:
    """The same parameters with `do_sample` resolved (see `GenerationParameters`).

    Raises:
        VlmqError: INVALID_REQUEST with the field at fault.
    """
    _check_ranges(parameters)
    if parameters.seed is not None and not 0 <= parameters.seed <= MAX_SEED:
        raise invalid("seed", f"takes a whole number from 0 to {MAX_SEED}")
    if not 0 <= parameters.top_logprobs <= MAX_TOP_LOGPROBS:
        raise invalid("top_logprobs", f"takes a whole number from 0 to {MAX_TOP_LOGPROBS}")
    for name in ("stop", "bad_words"):
        if "" in getattr(parameters, name):
            raise invalid(name, "takes strings that are not empty")
    if (
        parameters.max_new_tokens is not None
        and parameters.min_new_tokens is not None
        and parameters.min_new_tokens > parameters.max_new_tokens
    ):
        raise invalid("min_new_tokens", "must not be above max_new_tokens")
    _check_beams(parameters)
    return _resolve_sampling(parameters)


def fit_into_context(parameters: GenerationParameters, default: int, prompt_tokens: int, context: int) -> int:
    """How many tokens may be generated: what was asked for, or less if the context has less room.

    Raises:
        VlmqError: CONTEXT_LENGTH_EXCEEDED when the prompt leaves no room, or not enough for `min_new_tokens`.
    """
    room = context - prompt_tokens
    needed = max(parameters.min_new_tokens or 0, 1)
    if room < needed:
        raise VlmqError(
            ErrorCode.CONTEXT_LENGTH_EXCEEDED,
            f"The prompt has {prompt_tokens} tokens and at least {needed} must be generated, "
            f"but the model's context takes {context} tokens; shorten the text, or send fewer or smaller media",
            param="messages",
        )
    wanted = parameters.max_new_tokens or max(default, needed)
    return min(wanted, room)


def invalid(name: str, problem: str) -> VlmqError:
    return VlmqError(ErrorCode.INVALID_REQUEST, f"{name} {problem}", param=f"generation.{name}")


def _check_ranges(parameters: GenerationParameters) -> None:
    for name, least in _AT_LEAST.items():
        _between(name, getattr(parameters, name), least)
    for name, (least, most) in _UP_TO.items():
        _between(name, getattr(parameters, name), least, most)
    if parameters.temperature != 0:
        _between("temperature", parameters.temperature, MIN_TEMPERATURE, instead="0, or ")
    for name in _ABOVE_0_UP_TO_1:
        value: float | None = getattr(parameters, name)
        if value is not None and not 0 < value <= 1:
            raise invalid(name, "takes a number above 0, up to 1")
    for name in _FROM_0_BELOW_1:
        value = getattr(parameters, name)
        if value is not None and not 0 <= value < 1:
            raise invalid(name, "takes a number from 0, below 1")


def _check_beams(parameters: GenerationParameters) -> None:
    beams, texts = parameters.num_beams or 1, parameters.num_return_sequences or 1
    if beams == 1:
        if parameters.early_stopping:
            raise invalid("early_stopping", "is for beams; name num_beams, or leave it out")
        if parameters.length_penalty not in (None, 1):
            raise invalid("length_penalty", "is for beams; name num_beams, or leave it out")
        return
    if texts > beams:
        raise invalid("num_return_sequences", f"must not be above num_beams, which is {beams}")
    if parameters.logprobs:
        raise invalid("logprobs", "cannot be had with beams; leave out num_beams")


def _resolve_sampling(parameters: GenerationParameters) -> GenerationParameters:
    if parameters.temperature == 0:
        if parameters.do_sample:
            raise invalid("temperature", "must be above 0 when do_sample is true")
        return replace(parameters, do_sample=False, **dict.fromkeys(SAMPLING))  # type: ignore[arg-type]
    if parameters.do_sample is None and any(getattr(parameters, name) is not None for name in SAMPLING):
        return replace(parameters, do_sample=True)
    return parameters


def _between(name: str, value: float | None, least: float, most: float = math.inf, instead: str = "") -> None:
    if value is None or (least <= value <= most and value < math.inf):
        return
    problem = f"a number of at least {least}" if most == math.inf else f"a number from {least} to {most}"
    raise invalid(name, f"takes {instead}{problem}")
