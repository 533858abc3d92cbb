"""What `generation` takes, what it refuses, and that nothing is dropped."""

import json
from typing import Any

import pytest
from flask.testing import FlaskClient

from api.schemas.generation_names import REFUSED
from tests.api.bodies import BODY, errors

BEAMS = {"num_beams": 4}


def generation(**fields: Any) -> dict[str, Any]:
    return BODY | {"generation": fields}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_new_tokens": 10**9}, "max_new_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"n": 10**9}, "n"),
        ({"n": 17}, "n"),
        ({"n": 0}, "n"),
        ({"num_return_sequences": 10**9}, "num_return_sequences"),
        ({"num_beams": 10**9}, "num_beams"),
        ({"num_beams": True}, "num_beams"),
        ({"num_beams": 2.0}, "num_beams"),
        ({"max_tokens": 5, "max_new_tokens": 5}, "max_tokens"),
        ({"n": 2, "num_return_sequences": 2, "do_sample": True}, "n"),
        ({"stop": "a", "stop_strings": "a"}, "stop_strings"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences"),
        ({"num_beams": 2, "n": 3}, "n"),
        ({"n": 2, "do_sample": False}, "n"),
        ({"n": 2, "temperature": 0}, "n"),
        ({"do_sample": False, "temperature": 0.7}, "temperature"),
        ({"do_sample": False, "top_p": 0.7}, "top_p"),
        ({"do_sample": False, "top_k": 7}, "top_k"),
        ({"do_sample": False, "min_p": 0.1}, "min_p"),
        ({"do_sample": False, "top_h": 0.5}, "top_h"),
        ({"do_sample": False, "typical_p": 0.5}, "typical_p"),
        ({"do_sample": False, "epsilon_cutoff": 0.1}, "epsilon_cutoff"),
        ({"do_sample": False, "eta_cutoff": 0.1}, "eta_cutoff"),
        ({"early_stopping": True}, "early_stopping"),
        ({"early_stopping": "always"} | BEAMS, "early_stopping"),
        ({"early_stopping": 1} | BEAMS, "early_stopping"),
        ({"length_penalty": 2.0}, "length_penalty"),
        ({"length_penalty": 1e9} | BEAMS, "length_penalty"),
        ({"logprobs": True} | BEAMS, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"min_tokens": 3}, "min_tokens"),
        ({"max_tokens": 3, "min_new_tokens": 4}, "min_new_tokens"),
        ({"min_new_tokens": 4, "exponential_decay_length_penalty": [3, 1.1]}, "exponential_decay_length_penalty"),
        ({"exponential_decay_length_penalty": [3]}, "exponential_decay_length_penalty.1"),
        ({"exponential_decay_length_penalty": [3, 1e300]}, "exponential_decay_length_penalty.1"),
        ({"exponential_decay_length_penalty": 3}, "exponential_decay_length_penalty"),
        ({"top_h": 0}, "top_h"),
        ({"top_h": 1.1}, "top_h"),
        ({"min_p": -0.1}, "min_p"),
        ({"typical_p": 0}, "typical_p"),
        ({"epsilon_cutoff": 1}, "epsilon_cutoff"),
        ({"eta_cutoff": 1e999}, "eta_cutoff"),
        ({"repetition_penalty": 11}, "repetition_penalty"),
        ({"encoder_repetition_penalty": 0}, "encoder_repetition_penalty"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size"),
        ({"encoder_no_repeat_ngram_size": 10**9}, "encoder_no_repeat_ngram_size"),
        ({"eos_token_id": "</s>"}, "eos_token_id"),
        ({"eos_token_id": True}, "eos_token_id"),
        ({"eos_token_id": -1}, "eos_token_id"),
        ({"eos_token_id": [1, 2**40]}, "eos_token_id.1"),
        ({"forced_eos_token_id": []}, "forced_eos_token_id"),
        ({"forced_eos_token_id": 5, "suppress_tokens": [5]}, "forced_eos_token_id"),
        ({"suppress_tokens": []}, "suppress_tokens"),
        ({"suppress_tokens": [1.5]}, "suppress_tokens.0"),
        ({"begin_suppress_tokens": list(range(5000))}, "begin_suppress_tokens"),
        ({"bad_words": ["", "a"]}, "bad_words.0"),
        ({"bad_words": "a"}, "bad_words"),
        ({"bad_words_ids": [[]]}, "bad_words_ids.0"),
        ({"bad_words_ids": [1]}, "bad_words_ids.0"),
        ({"sequence_bias": [[[1], 1e999]]}, "sequence_bias.0.1"),
        ({"sequence_bias": [[[], 1]]}, "sequence_bias.0.0"),
        ({"sequence_bias": [[[1], 1], [[1], 2]]}, "sequence_bias"),
        ({"sequence_bias": {"1": 2}}, "sequence_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1"),
        ({"logit_bias": {"a": 1}}, "logit_bias.a"),
        ({"logit_bias": {"1": 1, "01": 2}}, "logit_bias"),
        ({"watermarking_config": {"seeding_scheme": "none"}}, "watermarking_config.seeding_scheme"),
        ({"use_cache": 0}, "use_cache"),
    ],
    ids=str,
)
def test_an_impossible_parameter_is_refused_by_the_name_it_was_sent_with(
    fields: dict[str, Any], param: str, client: FlaskClient
) -> None:
    status, found = errors(client, generation(**fields))
    assert (status, [name for _, name in found]) == (422, [f"generation.{param}"])
    assert {code for code, _ in found} <= {"invalid_request", "unsupported_parameter"}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_parameter_that_makes_no_sense_here_is_refused_with_its_reason(name: str, client: FlaskClient) -> None:
    answer = client.post("/v1/jobs", json=generation(**{name: 7}))
    assert answer.json is not None
    error = answer.json["error"]
    assert (answer.status_code, error["code"]) == (422, "unsupported_parameter")
    assert error["param"] == f"generation.{name}"
    assert REFUSED[name] in error["message"]


@pytest.mark.parametrize("field", ["max_tokns", "Temperature", "__class__"])
def test_an_unknown_parameter_is_refused_with_those_that_are_known(field: str, client: FlaskClient) -> None:
    answer = client.post("/v1/jobs", json=generation(**{field: 1}))
    assert answer.json is not None
    assert (answer.status_code, answer.json["error"]["code"]) == (422, "unknown_field")
    assert "max_new_tokens" in answer.json["detail"]


@pytest.mark.parametrize(
    ("fields", "stored"),
    [
        ({"max_tokens": 5}, {"max_new_tokens": 5}),
        ({"max_completion_tokens": 5}, {"max_new_tokens": 5}),
        ({"n": 2}, {"num_return_sequences": 2}),
        ({"stop_strings": "a"}, {"stop": ["a"]}),
        ({"logit_bias": {"7": -100}}, {"sequence_bias": [[[7], -100]]}),
        ({"eos_token_id": 3}, {"eos_token_id": [3]}),
        ({"early_stopping": "never"} | BEAMS, {"early_stopping": "never"} | BEAMS),
        ({"exponential_decay_length_penalty": [4, 1.1]}, {"exponential_decay_length_penalty": [4, 1.1]}),
        ({"sequence_bias": [[[1, 2], 3]]}, {"sequence_bias": [[[1, 2], 3]]}),
        ({"do_sample": False, "temperature": 1.0, "top_p": 1.0}, {"do_sample": False, "temperature": 1, "top_p": 1}),
        ({"frequency_penalty": 0, "presence_penalty": 0.0, "output_scores": False, "max_time": None}, {}),
        ({"temperature": None, "n": None}, {}),
        ({"bad_words": ["no"]}, {"bad_words": ["no"]}),
    ],
    ids=str,
)
def test_what_is_taken_is_stored_by_its_one_name(
    fields: dict[str, Any], stored: dict[str, Any], client: FlaskClient
) -> None:
    answer = client.post("/v1/jobs", json=generation(**fields))
    assert answer.json is not None
    assert answer.status_code == 202, answer.json
    assert json.loads(json.dumps(answer.json["request"]["generation"])) == stored


def test_degrading_is_allowed_unless_it_is_refused(client: FlaskClient) -> None:
    requests = [
        client.post("/v1/jobs", json=BODY | fields).json
        for fields in ({}, {"allow_degraded": True}, {"allow_degraded": False})
    ]
    kept = [answer["request"].get("allow_degraded") for answer in requests if answer is not None]
    assert kept == [None, None, False]
