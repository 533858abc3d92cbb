"""A parameter does to the engine's text what it does to plain `generate()`, on a checkpoint that learned nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from engine.generate_engine import GenerateEngine
from engine.shared_media import share_media_without_deepstack
from engine.types import Finished, GenerationParameters, Picture, PromptRequest
from tests.engine.listening import finish, run, text_of

CHAT = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What color is the square?"}]}]
LENGTH = 16
SAMPLED: dict[str, Any] = {"do_sample": True, "seed": 3}


class Plain:
    """The documented way, with a model and a processor of its own."""

    def __init__(self, folder: Path, picture: Picture) -> None:
        auto_model: Any = AutoModelForImageTextToText
        auto_processor: Any = AutoProcessor
        self.model = auto_model.from_pretrained(folder).eval()
        share_media_without_deepstack(self.model)
        self.processor = auto_processor.from_pretrained(folder)
        text = self.processor.apply_chat_template(CHAT, add_generation_prompt=True)
        self.inputs = self.processor(text=[text], images=[picture], return_tensors="pt")
        self.prompt_tokens = self.inputs["input_ids"].shape[1]

    def tokens(self, seed: int = 3, **arguments: Any) -> list[list[int]]:
        torch.manual_seed(seed)
        output = self.model.generate(**self.inputs, **({"max_new_tokens": LENGTH, "do_sample": False} | arguments))
        rows: list[list[int]] = output[:, self.prompt_tokens :].tolist()
        return rows

    def texts(self, **arguments: Any) -> list[str]:
        rows = self.tokens(**arguments)
        return [self.processor.tokenizer.decode(row, skip_special_tokens=True).rstrip("\ufffd") for row in rows]


@pytest.fixture(scope="module")
def plain(random_folder: Path, pictures: list[Picture]) -> Plain:
    return Plain(random_folder, pictures[0])


@pytest.fixture(scope="module")
def prompt(pictures: list[Picture]) -> PromptRequest:
    return PromptRequest(CHAT, pictures[:1])


def answer(engine: GenerateEngine, prompt: PromptRequest, **named: Any) -> Finished:
    return finish(engine, prompt, GenerationParameters(**({"max_new_tokens": LENGTH, "do_sample": False} | named)))


@pytest.mark.parametrize(
    "named",
    [
        {},
        {"repetition_penalty": 1.8},
        {"encoder_repetition_penalty": 3.0},
        {"no_repeat_ngram_size": 1},
        {"encoder_no_repeat_ngram_size": 1},
        {"use_cache": False},
        {"renormalize_logits": True, "repetition_penalty": 1.3},
        {"remove_invalid_values": True},
        {"suppress_tokens": tuple(range(100, 500))},
        {"begin_suppress_tokens": tuple(range(100, 500))},
        {"exponential_decay_length_penalty": (2, 2.0)},
        {"forced_eos_token_id": (634,), "max_new_tokens": 5},
        {"watermarking_config": {"bias": 5.0, "context_width": 2}},
        {"num_beams": 3},
        {"num_beams": 3, "num_return_sequences": 3},
        {"num_beams": 3, "length_penalty": -2.0, "early_stopping": True},
        {"num_beams": 3, "early_stopping": "never"},
        {"num_beams": 2, "no_repeat_ngram_size": 2},
        SAMPLED,
        SAMPLED | {"temperature": 0.3},
        SAMPLED | {"top_p": 0.2},
        SAMPLED | {"top_k": 3},
        SAMPLED | {"min_p": 0.9},
        SAMPLED | {"top_h": 0.3},
        SAMPLED | {"typical_p": 0.1},
        SAMPLED | {"epsilon_cutoff": 0.03},
        SAMPLED | {"eta_cutoff": 0.3},
        SAMPLED | {"num_return_sequences": 3},
        SAMPLED | {"num_beams": 3},
        SAMPLED | {"num_beams": 3, "num_return_sequences": 2, "temperature": 0.5},
    ],
    ids=str,
)
def test_a_parameter_does_what_it_does_to_plain_generate(
    named: dict[str, Any], plain: Plain, random_engine: GenerateEngine, prompt: PromptRequest
) -> None:
    theirs = {name: list(value) if isinstance(value, tuple) else value for name, value in named.items()}
    theirs.pop("seed", None)
    if "exponential_decay_length_penalty" in named:
        theirs["exponential_decay_length_penalty"] = named["exponential_decay_length_penalty"]
    end = answer(random_engine, prompt, **named)
    assert [output.text for output in end.outputs] == plain.texts(**theirs)
    assert end.text == end.outputs[0].text


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k", "min_p", "top_h", "typical_p", "epsilon_cutoff"])
def test_the_values_that_are_compared_make_a_difference(name: str, plain: Plain) -> None:
    values: dict[str, Any] = {
        "temperature": 0.3, "top_p": 0.2, "top_k": 3, "min_p": 0.9, "top_h": 0.3, "typical_p": 0.1,
        "epsilon_cutoff": 0.03,
    }  # fmt: skip
    assert plain.texts(do_sample=True, **{name: values[name]}) != plain.texts(do_sample=True)


def test_a_bias_reaches_the_scores(plain: Plain, random_engine: GenerateEngine, prompt: PromptRequest) -> None:
    first, second = plain.tokens()[0][:2]
    bias = {(first,): -50.0, (first, second): -50.0, (77,): 3.0}
    end = answer(random_engine, prompt, sequence_bias=tuple(bias.items()))
    assert [end.text] == plain.texts(sequence_bias=bias) != plain.texts()


def test_bad_words_are_never_written(plain: Plain, random_engine: GenerateEngine, prompt: PromptRequest) -> None:
    unhindered = answer(random_engine, prompt).text
    word = unhindered.split()[0]
    tokenizer = plain.processor.tokenizer
    ways = [tokenizer.encode(text, add_special_tokens=False) for text in (word, f" {word}")]
    end = answer(random_engine, prompt, bad_words=(word,))
    assert [end.text] == plain.texts(bad_words_ids=ways)
    assert word not in end.text.split()


def test_an_end_token_of_the_jobs_own_ends_the_text_and_is_no_part_of_it(
    plain: Plain, random_engine: GenerateEngine, prompt: PromptRequest
) -> None:
    tokens = plain.tokens()[0]
    end_token = tokens[5]
    kept = tokens[: tokens.index(end_token)]
    end = answer(random_engine, prompt, eos_token_id=(end_token, 0))
    assert end.text == plain.processor.tokenizer.decode(kept, skip_special_tokens=True).rstrip("\ufffd")
    assert (end.finish_reason, end.completion_tokens) == ("stop", len(kept) + 1)
    assert plain.tokens(eos_token_id=[end_token, 0]) == [tokens[: len(kept) + 1]]


@pytest.mark.parametrize("named", [{}, {"num_beams": 3}, SAMPLED | {"num_return_sequences": 2}], ids=str)
def test_stop_strings_cut_what_plain_generate_ends_at(
    named: dict[str, Any], plain: Plain, random_engine: GenerateEngine, prompt: PromptRequest
) -> None:
    whole = answer(random_engine, prompt, **named).text
    stop = whole[5:8]
    arguments = {name: value for name, value in named.items() if name != "seed"}
    # The texts that plain `generate()` returns end with the token that completed the stop string.
    theirs = plain.texts(stop_strings=[stop], tokenizer=plain.processor.tokenizer, **arguments)
    end = answer(random_engine, prompt, stop=(stop,), **named)
    cut = [text.partition(stop)[0] if stop in text else text for text in theirs]
    assert [output.text for output in end.outputs] == cut
    assert end.finish_reason == ("stop" if stop in theirs[0] else "length")


@pytest.mark.parametrize("named", [{}, SAMPLED | {"num_return_sequences": 2, "temperature": 0.5}], ids=str)
def test_log_probabilities_are_the_models_own(
    named: dict[str, Any], plain: Plain, random_engine: GenerateEngine, prompt: PromptRequest
) -> None:
    arguments = {name: value for name, value in named.items() if name != "seed"}
    torch.manual_seed(3)
    output = plain.model.generate(
        **plain.inputs, **({"max_new_tokens": LENGTH, "do_sample": False} | arguments),
        output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    end = answer(random_engine, prompt, logprobs=True, top_logprobs=4, **named)
    for row, found in enumerate(end.outputs):
        assert found.logprobs is not None
        tokens = output.sequences[row, plain.prompt_tokens :].tolist()[: found.completion_tokens]
        assert [entry.token_id for entry in found.logprobs] == tokens
        for step, (token, entry) in enumerate(zip(tokens, found.logprobs, strict=True)):
            expected = torch.log_softmax(output.logits[step][row].float(), dim=-1)
            assert entry.logprob == pytest.approx(float(expected[token]), abs=1e-4)
            values, ids = expected.topk(4)
            assert [alternative.token_id for alternative in entry.top] == ids.tolist()
            assert [alternative.logprob for alternative in entry.top] == pytest.approx(values.tolist(), abs=1e-4)
        told = b"".join(entry.bytes for entry in found.logprobs).decode(errors="ignore")
        assert told.lstrip() == found.text.replace("\ufffd", "").lstrip()


@pytest.mark.parametrize("named", [{"num_beams": 3}, SAMPLED | {"num_beams": 2}], ids=str)
def test_beams_come_in_one_piece_at_the_end(
    named: dict[str, Any], random_engine: GenerateEngine, prompt: PromptRequest
) -> None:
    parameters = GenerationParameters(**({"max_new_tokens": LENGTH, "do_sample": False} | named))
    events = run(random_engine, prompt, parameters)
    last = events[-1]
    assert isinstance(last, Finished)
    assert len(events) == 3
    assert text_of(events, "only") == last.text != ""


def test_the_first_of_several_texts_is_told_as_it_grows(random_engine: GenerateEngine, prompt: PromptRequest) -> None:
    parameters = GenerationParameters(max_new_tokens=LENGTH, num_return_sequences=3, do_sample=True, seed=1)
    events = run(random_engine, prompt, parameters)
    last = events[-1]
    assert isinstance(last, Finished)
    assert len(events) > 5
    assert text_of(events, "only") == last.text == last.outputs[0].text
    assert last.completion_tokens == sum(output.completion_tokens for output in last.outputs)
    assert len({output.text for output in last.outputs}) == 3
