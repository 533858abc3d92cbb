"""Generation parameters checked, and their hints resolved, before anything runs."""

import math
from dataclasses import replace

from engine.types import GenerationParameters
from vlmq.errors import ErrorCode, VlmqError

MAX_SEED = 2**63 - 1
# Below these, scores leave the range of floats and nothing can be drawn from them.
MIN_TEMPERATURE = 0.01
MIN_PENALTY = 0.01


def check_parameters(parameters: GenerationParameters) -> GenerationParameters:
    """The same parameters with `do_sample` resolved (see `GenerationParameters`).

    Raises:
        VlmqError: INVALID_REQUEST with the field at fault.
    """
    _at_least("max_new_tokens", parameters.max_new_tokens, 1)
    _at_least("min_new_tokens", parameters.min_new_tokens, 0)
    _at_least("top_k", parameters.top_k, 0)
    if parameters.temperature != 0:
        _at_least("temperature", parameters.temperature, MIN_TEMPERATURE, "0, or ")
    _at_least("repetition_penalty", parameters.repetition_penalty, MIN_PENALTY)
    if parameters.top_p is not None and not 0 < parameters.top_p <= 1:
        raise _invalid("top_p", "takes a number above 0, up to 1")
    if parameters.seed is not None and not 0 <= parameters.seed <= MAX_SEED:
        raise _invalid("seed", f"takes a whole number from 0 to {MAX_SEED}")
    if "" in parameters.stop:
        raise _invalid("stop", "takes strings that are not empty")
    if (
        parameters.max_new_tokens is not None
        and parameters.min_new_tokens is not None
        and parameters.min_new_tokens > parameters.max_new_tokens
    ):
        raise _invalid("min_new_tokens", "must not be above max_new_tokens")
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


def _resolve_sampling(parameters: GenerationParameters) -> GenerationParameters:
    if parameters.temperature == 0:
        if parameters.do_sample:
            raise _invalid("temperature", "must be above 0 when do_sample is true")
        return replace(parameters, do_sample=False, temperature=None, top_p=None, top_k=None)
    named = (parameters.temperature, parameters.top_p, parameters.top_k)
    if parameters.do_sample is None and any(value is not None for value in named):
        return replace(parameters, do_sample=True)
    return parameters


def _at_least(name: str, value: float | None, minimum: float, instead: str = "") -> None:
    if value is not None and not minimum <= value < math.inf:
        raise _invalid(name, f"takes {instead}a number of at least {minimum}")


def _invalid(name: str, problem: str) -> VlmqError:
    return VlmqError(ErrorCode.INVALID_REQUEST, f"{name} {problem}", param=f"generation.{name}")
