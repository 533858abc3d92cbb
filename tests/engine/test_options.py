import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from engine.checkpoint import Checkpoint, load_checkpoint
from engine.generate_engine import GenerateEngine
from engine.types import CheckpointSettings, Failed, Finished, GenerationParameters, Output, Picture, PromptRequest
from tests.engine.listening import ask, end_of, finish, read_ends, run, text_of
from tests.engine.steps import at_step, fail_with
from vlmq.errors import ErrorCode, VlmqError

LONG_BEAMS = GenerationParameters(max_new_tokens=4000, min_new_tokens=4000, num_beams=3)
LONG_TEXTS = GenerationParameters(max_new_tokens=4000, min_new_tokens=4000, num_return_sequences=3, do_sample=True)


@pytest.mark.parametrize(
    ("named", "param"),
    [
        ({"eos_token_id": (10**6,)}, "eos_token_id"),
        ({"forced_eos_token_id": (-1,)}, "forced_eos_token_id"),
        ({"suppress_tokens": (1, 640)}, "suppress_tokens"),
        ({"suppress_tokens": tuple(range(640))}, "suppress_tokens"),
        ({"begin_suppress_tokens": (2**40,)}, "begin_suppress_tokens"),
        ({"bad_words_ids": ((1, 99999),)}, "bad_words_ids"),
        ({"bad_words_ids": ((634,),)}, "bad_words_ids"),
        ({"bad_words": ("ok", "")}, "bad_words"),
        ({"sequence_bias": (((640,), 1.0),)}, "sequence_bias"),
        ({"forced_eos_token_id": (5,), "suppress_tokens": (5, 6)}, "forced_eos_token_id"),
        ({"num_return_sequences": 2}, "num_return_sequences"),
        ({"num_return_sequences": 2, "temperature": 0.0}, "num_return_sequences"),
        ({"num_return_sequences": 4, "num_beams": 3}, "num_return_sequences"),
        ({"num_return_sequences": 10**9, "do_sample": True}, "num_return_sequences"),
        ({"num_beams": 10**9}, "num_beams"),
        ({"early_stopping": True}, "early_stopping"),
        ({"length_penalty": 2.0}, "length_penalty"),
        ({"logprobs": True, "num_beams": 2}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"min_p": 1.5}, "min_p"),
        ({"top_h": 0.0}, "top_h"),
        ({"typical_p": float("nan")}, "typical_p"),
        ({"epsilon_cutoff": 1.0}, "epsilon_cutoff"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size"),
        ({"encoder_repetition_penalty": 1e-40}, "encoder_repetition_penalty"),
    ],
    ids=str,
)
def test_what_this_checkpoint_cannot_do_is_refused_by_name(
    named: dict[str, Any], param: str, engine: GenerateEngine
) -> None:
    with pytest.raises(VlmqError) as refusal:
        engine.prepare("any", ask("hello"), GenerationParameters(**named))
    assert (refusal.value.code, refusal.value.param) == (ErrorCode.INVALID_REQUEST, f"generation.{param}")


@pytest.mark.parametrize(
    "named",
    [
        {"suppress_tokens": tuple(token for token in range(640) if token != 634), "min_new_tokens": 2},
        {"suppress_tokens": tuple(range(639)), "begin_suppress_tokens": (639,), "do_sample": True},
        {"exponential_decay_length_penalty": (0, 10.0**30), "suppress_tokens": (634,), "max_new_tokens": 40},
    ],
    ids=["nothing but an end that must not come", "nothing to begin with", "a penalty beyond all numbers"],
)
def test_parameters_that_leave_no_token_fail_their_job_and_no_other(
    named: dict[str, Any], random_engine: GenerateEngine
) -> None:
    failed = end_of(run(random_engine, ask("hello"), GenerationParameters(**({"max_new_tokens": 8} | named))), "only")
    assert isinstance(failed, Failed)
    assert (failed.error.code, failed.error.retryable) == (ErrorCode.INVALID_REQUEST, False)
    assert finish(random_engine, ask("hello"), GenerationParameters(max_new_tokens=3)).completion_tokens == 3


@pytest.mark.parametrize("parameters", [LONG_BEAMS, LONG_TEXTS], ids=["beams", "texts"])
def test_several_at_once_end_within_two_steps_of_a_cancel_and_keep_their_text(
    parameters: GenerationParameters, engine: GenerateEngine, checkpoint: Checkpoint
) -> None:
    with at_step(checkpoint, 6, lambda: engine.cancel("only")) as calls:
        events = run(engine, ask("hello"), parameters)
    end = end_of(events, "only")
    assert isinstance(end, Finished)
    assert (end.finish_reason, len(calls) <= 8) == ("cancelled", True)
    assert end.text == text_of(events, "only") != ""


def test_beams_end_at_their_deadline_and_make_progress_until_then(engine: GenerateEngine) -> None:
    engine.submit(engine.prepare("only", ask("hello"), LONG_BEAMS, deadline=time.monotonic() + 0.4))
    moments = set()
    while not (events := engine.next_step(0.02)) or not any(isinstance(event, Finished) for event in events):
        moments.add(engine.last_progress())
    end = end_of(events, "only")
    assert isinstance(end, Finished)
    assert (end.finish_reason, end.text != "") == ("deadline", True)
    assert len(moments) > 3


def test_each_of_several_texts_ends_at_its_own_stop_string(
    random_engine: GenerateEngine,
) -> None:
    parameters = GenerationParameters(
        max_new_tokens=2000, num_return_sequences=2, do_sample=True, seed=5, stop=("e",), eos_token_id=(0,)
    )
    random_engine.submit(random_engine.prepare("only", ask("hello"), parameters, deadline=time.monotonic() + 5))
    end = end_of(read_ends(random_engine, 1), "only")
    assert isinstance(end, Finished)
    assert [output.finish_reason for output in end.outputs] == ["stop", "stop"]
    assert all("e" not in output.text for output in end.outputs)


def test_running_out_of_memory_with_beams_has_its_code(engine: GenerateEngine, checkpoint: Checkpoint) -> None:
    with at_step(checkpoint, 2, fail_with(torch.OutOfMemoryError("CUDA out of memory"))):
        failed = end_of(run(engine, ask("hello"), LONG_BEAMS), "only")
    assert isinstance(failed, Failed)
    assert (failed.error.code, failed.text) == (ErrorCode.OUT_OF_MEMORY, "")


def test_the_bundled_model_sees_the_same_with_beams(engine: GenerateEngine, pictures: list[Picture]) -> None:
    parts = [{"type": "image"}, {"type": "text", "text": "What color is the square?"}]
    prompt = PromptRequest([{"role": "user", "content": parts}], pictures[:1])
    greedy = finish(engine, prompt, GenerationParameters(max_new_tokens=16)).text
    beams = finish(engine, prompt, GenerationParameters(max_new_tokens=16, num_beams=4, num_return_sequences=4))
    assert beams.text == greedy
    assert len(beams.outputs) == 4
    assert beams.completion_tokens == sum(output.completion_tokens for output in beams.outputs)


def test_one_text_has_one_output(engine: GenerateEngine) -> None:
    end = finish(engine, ask("hello"), GenerationParameters(max_new_tokens=3, min_new_tokens=3))
    assert end.outputs == (Output(end.text, "length", 3),)


@pytest.fixture
def opinionated(random_folder: Path) -> Iterator[tuple[GenerateEngine, GenerationConfig]]:
    """A checkpoint whose generation config sets nearly everything."""
    checkpoint = load_checkpoint(CheckpointSettings(str(random_folder), device="cpu"))
    config: GenerationConfig = checkpoint.model.generation_config
    config.num_beams, config.num_return_sequences, config.num_beam_groups = 4, 2, 2
    config.max_new_tokens, config.repetition_penalty, config.stop_strings = 30, 1.7, ["shape"]
    config.return_dict_in_generate, config.prompt_lookup_num_tokens, config.penalty_alpha = True, 3, 0.6
    engine = GenerateEngine(checkpoint)
    yield engine, config
    engine.close()


def test_what_the_checkpoint_sets_is_the_default(
    opinionated: tuple[GenerateEngine, GenerationConfig], random_engine: GenerateEngine
) -> None:
    engine, _ = opinionated
    events = run(engine, ask("hello"), GenerationParameters())
    end = end_of(events, "only")
    assert isinstance(end, Finished)
    named = GenerationParameters(max_new_tokens=30, repetition_penalty=1.7, stop=("shape",))
    assert end.text == finish(random_engine, ask("hello"), named).text
    assert len(end.outputs) == 1
    # As text that is streamed is.
    assert len(events) > 3


def test_what_a_job_names_takes_the_place_of_the_checkpoints(
    opinionated: tuple[GenerateEngine, GenerationConfig], random_engine: GenerateEngine
) -> None:
    engine, _ = opinionated
    named = GenerationParameters(max_new_tokens=9, repetition_penalty=1.0, stop=("~",), num_beams=2)
    assert finish(engine, ask("hello"), named).text == finish(random_engine, ask("hello"), named).text
