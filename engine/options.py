"""Checked parameters -> the arguments of one `generate()` call, with one checkpoint's tokens and defaults."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from engine.generation_parameters import GenerationParameters
from engine.parameters import invalid

logger = logging.getLogger(__name__)

# For the checkpoints that name no length of their own.
_DEFAULT_NEW_TOKENS = 256
# Passed on under their own names, as they are.
_PASSED_ON = (
    "min_new_tokens", "temperature", "top_p", "top_k", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff",
    "repetition_penalty", "encoder_repetition_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty", "renormalize_logits", "remove_invalid_values", "num_beams", "length_penalty",
    "early_stopping", "num_return_sequences", "use_cache",
)  # fmt: skip
# Lists of tokens, passed on where they are not empty.
_TOKENS = ("eos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens")
# What a checkpoint may set that would make `generate()` look for code on the hub, ask for what a call here does not
# give, or bring several tokens a step.
_NOT_HERE = (
    "penalty_alpha", "dola_layers", "num_beam_groups", "diversity_penalty", "constraints", "force_words_ids",
    "low_memory", "prompt_lookup_num_tokens", "assistant_early_exit", "use_mtp", "token_healing",
    "return_dict_in_generate", "output_scores", "output_logits", "output_attentions", "output_hidden_states",
    "num_beams", "num_return_sequences", "guidance_scale",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Options:
    """What `generate()` is called with, and what is to be known about it beforehand.

    `end_tokens` end a text, as one of `stops` does. `samples` means that a seed matters.
    """

    arguments: dict[str, Any]
    end_tokens: frozenset[int]
    stops: tuple[str, ...]
    samples: bool
    beams: int
    texts: int

    @property
    def restrains(self) -> bool:
        """Whether something may leave no token to choose."""
        return self.samples or bool(self.arguments.keys() & _RESTRAINTS)


_RESTRAINTS = {
    "bad_words_ids", "sequence_bias", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_new_tokens",
    *_TOKENS, "exponential_decay_length_penalty", "repetition_penalty", "encoder_repetition_penalty",
}  # fmt: skip


class OptionReader:
    """Knows one checkpoint's vocabulary and what its generation config sets, which it makes fit for `generate()`."""

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._vocabulary: int = model.config.get_text_config().vocab_size
        config = model.generation_config
        for name in _NOT_HERE:
            if getattr(config, name, None) not in (None, False, 1, 0):
                logger.warning("the checkpoint's %s does not apply here", name)
            setattr(config, name, None)
        self.default_new_tokens: int = config.max_new_tokens or config.max_length or _DEFAULT_NEW_TOKENS
        self._samples = bool(config.do_sample)
        self._end_tokens = _tokens(config.eos_token_id)
        # Ours hold back what could become one, and say why the text ended.
        self._stops = (config.stop_strings,) if isinstance(config.stop_strings, str) else config.stop_strings or ()
        config.stop_strings = None

    def read(self, parameters: GenerationParameters, max_new_tokens: int) -> Options:
        """The call for these parameters, which `check_parameters` has seen.

        Raises:
            VlmqError: INVALID_REQUEST with the field at fault.
        """
        samples = self._samples if parameters.do_sample is None else parameters.do_sample
        self._check_tokens(parameters)
        ends = self._end_tokens if parameters.eos_token_id is None else parameters.eos_token_id
        self._check_together(parameters, samples=samples, ends=ends)
        arguments = {name: getattr(parameters, name) for name in _PASSED_ON}
        arguments |= {name: list(tokens) for name in _TOKENS if (tokens := getattr(parameters, name))}
        arguments |= {"max_new_tokens": max_new_tokens, "do_sample": samples}
        if bad_words := self._bad_words(parameters):
            arguments["bad_words_ids"] = bad_words
        if parameters.sequence_bias:
            arguments["sequence_bias"] = {tokens: float(bias) for tokens, bias in parameters.sequence_bias}
        if parameters.watermarking_config is not None:
            arguments["watermarking_config"] = dict(parameters.watermarking_config)
        return Options(
            arguments={name: value for name, value in arguments.items() if value is not None},
            end_tokens=frozenset(ends),
            stops=(*parameters.stop, *(() if parameters.stop else self._stops)),
            samples=samples,
            beams=parameters.num_beams or 1,
            texts=parameters.num_return_sequences or 1,
        )

    def _bad_words(self, parameters: GenerationParameters) -> list[list[int]]:
        """The tokens of each word as it is written at the beginning of a text, and as it is within one."""
        found = [list(tokens) for tokens in parameters.bad_words_ids]
        for word in parameters.bad_words:
            ways = [self._tokenizer.encode(text, add_special_tokens=False).ids for text in (word, f" {word}")]
            if not all(ways):
                raise invalid("bad_words", "has a word that this model has no tokens for")
            found += ways
        return found

    def _check_tokens(self, parameters: GenerationParameters) -> None:
        named: dict[str, Iterable[int]] = {name: getattr(parameters, name) or () for name in _TOKENS}
        named["bad_words_ids"] = (token for tokens in parameters.bad_words_ids for token in tokens)
        named["sequence_bias"] = (token for tokens, _ in parameters.sequence_bias for token in tokens)
        for name, tokens in named.items():
            if any(not 0 <= token < self._vocabulary for token in tokens):
                raise invalid(name, f"takes tokens of this model's vocabulary, from 0 to {self._vocabulary - 1}")

    def _check_together(self, parameters: GenerationParameters, *, samples: bool, ends: Iterable[int]) -> None:
        texts, beams = parameters.num_return_sequences or 1, parameters.num_beams or 1
        if texts > 1 and beams == 1 and not samples:
            problem = "above 1 takes do_sample or num_beams: without them all texts would be the same"
            raise invalid("num_return_sequences", problem)
        forced, suppressed = parameters.forced_eos_token_id or (), set(parameters.suppress_tokens)
        if forced and suppressed.issuperset(forced):
            raise invalid("forced_eos_token_id", "has no token that suppress_tokens leaves")
        if len(suppressed) >= self._vocabulary:
            raise invalid("suppress_tokens", "leaves no token to choose")
        if any(len(tokens) == 1 and tokens[0] in ends for tokens in parameters.bad_words_ids):
            raise invalid("bad_words_ids", "has an end token; suppress_tokens is the place for it")
        if parameters.exponential_decay_length_penalty is not None and not ends:
            raise invalid("exponential_decay_length_penalty", "needs an end token, and this model has none")


def _tokens(named: int | list[int] | None) -> tuple[int, ...]:
    return (named,) if isinstance(named, int) else tuple(named or ())
