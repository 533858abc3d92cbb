"""How a sequence is generated, in the names of transformers' `GenerationConfig`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class GenerationParameters:
    """How to generate; None leaves it to the checkpoint.

    Without `do_sample`, naming one of SAMPLING (`vlmq/generation_limits.py`) asks for sampling, and a temperature of 0
    asks for none. `stop` strings end the text and are not part of it; nor are the end tokens. `bad_words` are texts,
    `bad_words_ids` their tokens; `sequence_bias` adds to the score of the last token of each list of tokens.
    `num_beams` is 1 unless named.
    """

    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    eos_token_id: tuple[int, ...] | None = None
    forced_eos_token_id: tuple[int, ...] | None = None
    exponential_decay_length_penalty: tuple[int, float] | None = None

    do_sample: bool | None = None
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    top_h: float | None = None
    typical_p: float | None = None
    epsilon_cutoff: float | None = None
    eta_cutoff: float | None = None

    repetition_penalty: float | None = None
    encoder_repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    encoder_no_repeat_ngram_size: int | None = None
    bad_words: tuple[str, ...] = ()
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    sequence_bias: tuple[tuple[tuple[int, ...], float], ...] = ()
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    watermarking_config: Mapping[str, Any] | None = None
    renormalize_logits: bool | None = None
    remove_invalid_values: bool | None = None

    num_beams: int | None = None
    length_penalty: float | None = None
    early_stopping: bool | Literal["never"] | None = None
    num_return_sequences: int | None = None
    logprobs: bool = False
    top_logprobs: int = 0
    use_cache: bool | None = None
