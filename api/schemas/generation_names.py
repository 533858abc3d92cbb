"""Names in `generation` that mean another, and names that are known but refused, with the reason."""

# OpenAI's and transformers' names for what is here already.
ALIASES: dict[str, str] = {
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "n": "num_return_sequences",
    "stop_strings": "stop",
    "logit_bias": "sequence_bias",
}

_OPERATOR = "how a model is run is the operator's choice"
_TOO_LARGE = "too large to return; logprobs and top_logprobs are what can be had"
_TEXT_MODELS = "for models with an encoder for text, which these are not"
_DRAFTS = "drafted tokens change how fast a text comes, not which; how a model is run is the operator's choice"
_HUB = "transformers runs it with code from the hub only, and no such code is run here"

REFUSED: dict[str, str] = {
    "max_length": "it counts the prompt as well; name max_new_tokens",
    "min_length": "it counts the prompt as well; name min_new_tokens",
    "min_tokens": "name min_new_tokens",
    "max_time": "name deadlines.run_s beside generation",
    "stop_token_ids": "name eos_token_id",
    "ignore_eos": "name min_new_tokens",
    "frequency_penalty": "transformers has no such penalty; name repetition_penalty, which multiplies",
    "presence_penalty": "transformers has no such penalty; name repetition_penalty, which multiplies",
    "best_of": "name num_return_sequences, or num_beams",
    "forced_bos_token_id": "it acts on the first token of a prompt; end messages with an assistant's text instead",
    "token_healing": "it would write the prompt anew, without its images",
    "guidance_scale": "it would run the model again on a prompt without its images",
    "encoder_outputs": _TEXT_MODELS,
    "decoder_start_token_id": _TEXT_MODELS,
    "pad_token_id": "nothing is padded in an answer",
    "bos_token_id": "the chat template writes it",
    "num_beam_groups": f"{_HUB}; name num_beams",
    "diversity_penalty": f"{_HUB}; name num_beams",
    "constraints": _HUB,
    "force_words_ids": _HUB,
    "penalty_alpha": _HUB,
    "dola_layers": _HUB,
    "low_memory": "transformers has no such search any more",
    "custom_generate": "no code from the hub is run here",
    "cache_implementation": _OPERATOR,
    "cache_config": _OPERATOR,
    "max_cache_len": _OPERATOR,
    "compile_config": _OPERATOR,
    "disable_compile": _OPERATOR,
    "prefill_chunk_size": _OPERATOR,
    "continuous_batching_config": _OPERATOR,
    "output_attentions": _TOO_LARGE,
    "output_hidden_states": _TOO_LARGE,
    "output_scores": _TOO_LARGE,
    "output_logits": _TOO_LARGE,
    "return_dict_in_generate": "the job is what is returned",
    "is_assistant": _DRAFTS,
    "num_assistant_tokens": _DRAFTS,
    "num_assistant_tokens_schedule": _DRAFTS,
    "assistant_confidence_threshold": _DRAFTS,
    "assistant_early_exit": _DRAFTS,
    "assistant_lookbehind": _DRAFTS,
    "assistant_ensemble_weight": _DRAFTS,
    "target_lookbehind": _DRAFTS,
    "prompt_lookup_num_tokens": _DRAFTS,
    "max_matching_ngram_size": _DRAFTS,
    "speculation_type": _DRAFTS,
    "use_mtp": _DRAFTS,
}

# With these values, a refused field asks for what happens anyway; so do null and false.
NEUTRAL: dict[str, float] = {
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "diversity_penalty": 0,
    "num_beam_groups": 1,
    "guidance_scale": 1,
    "best_of": 1,
}
