import json
import math
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from engine.load import load_engine
from engine.scripted import FRAME_TOKENS, IMAGE_TOKENS, ScriptedEngine
from engine.types import (
    CheckpointSettings,
    Delta,
    Failed,
    Finished,
    GenerationParameters,
    PromptRequest,
    Started,
    VideoClip,
)
from tests.engine.listening import ask, end_of, finish, of, read_ends, read_until, run, text_of
from vlmq.errors import ErrorCode, VlmqError

SETTINGS = CheckpointSettings("scripted", engine="scripted")
DEFAULTS = GenerationParameters()


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    engine = load_engine(SETTINGS)
    assert isinstance(engine, ScriptedEngine)
    yield engine
    engine.close()


def script(**values: Any) -> PromptRequest:
    return ask(json.dumps(values))


def test_a_script_says_how_many_tokens_there_are(engine: ScriptedEngine) -> None:
    events = run(engine, script(tokens=4), DEFAULTS)
    assert [event.text for event in events if isinstance(event, Delta)] == ["w1", " w2", " w3", " w4"]
    end = end_of(events, "only")
    assert isinstance(end, Finished)
    assert (end.text, end.completion_tokens, end.finish_reason) == ("w1 w2 w3 w4", 4, "stop")


def test_a_scripts_text_is_repeated_to_its_length(engine: ScriptedEngine) -> None:
    assert finish(engine, script(text="a b", tokens=5), DEFAULTS).text == "a b a b a"
    assert finish(engine, script(text="a b c"), DEFAULTS).text == "a b c"


def test_plain_text_is_echoed(engine: ScriptedEngine) -> None:
    assert finish(engine, ask("what is this?"), DEFAULTS).text == "echo: what is this?"


def test_media_count_as_tokens(engine: ScriptedEngine) -> None:
    parts = [{"type": "image"}, {"type": "video"}, {"type": "text", "text": "two words"}]
    clip = VideoClip(np.zeros((3, 8, 8, 3), np.uint8), (0.0, 1.0, 2.0), (0, 1, 2), 1.0, 3, 3.0)
    prompt = PromptRequest([{"role": "user", "content": parts}], [np.zeros((8, 8, 3), np.uint8)], [clip])
    started = run(engine, prompt, DEFAULTS)[0]
    assert started == Started("only", 2 + IMAGE_TOKENS + 3 * FRAME_TOKENS, IMAGE_TOKENS, 3 * FRAME_TOKENS)


def test_the_length_and_stop_strings_are_kept(engine: ScriptedEngine) -> None:
    cut = finish(engine, script(tokens=9), GenerationParameters(max_new_tokens=3))
    assert (cut.text, cut.finish_reason) == ("w1 w2 w3", "length")
    stopped = finish(engine, script(tokens=9), GenerationParameters(stop=("3 w",)))
    assert (stopped.text, stopped.finish_reason, stopped.completion_tokens) == ("w1 w2 w", "stop", 4)


def test_sequences_share_every_step(engine: ScriptedEngine) -> None:
    for number in range(20):
        engine.submit(engine.prepare(f"s{number}", script(tokens=50, step_ms=5), DEFAULTS))
    before = time.monotonic()
    events = read_ends(engine, 20)
    # One after the other would take 20 x 50 x 5 ms.
    assert time.monotonic() - before < 2.5
    for number in range(20):
        assert end_of(events, f"s{number}").completion_tokens == 50
        assert end_of(events, f"s{number}").text == text_of(events, f"s{number}")


def test_a_cancel_ends_a_sequence_and_leaves_the_others(engine: ScriptedEngine) -> None:
    engine.submit(engine.prepare("long", script(tokens=10_000, step_ms=1), DEFAULTS))
    engine.submit(engine.prepare("sleepy", script(tokens=1, prefill_ms=3_600_000), DEFAULTS))
    engine.submit(engine.prepare("other", script(tokens=30, step_ms=1), DEFAULTS))
    events = read_until(engine, lambda events: len(of(events, "long")) > 3)
    engine.cancel("long")
    engine.cancel("long")
    engine.cancel("sleepy")
    events += read_until(engine, lambda new: sum(isinstance(e, Finished) for e in events + new) == 3)
    reasons = {e.id: e.finish_reason for e in events if isinstance(e, Finished)}
    assert reasons == {"long": "cancelled", "sleepy": "cancelled", "other": "stop"}


def test_a_deadline_ends_a_sequence_between_its_steps(engine: ScriptedEngine) -> None:
    slow = script(tokens=2, step_ms=3_600_000)
    engine.submit(engine.prepare("only", slow, DEFAULTS, deadline=time.monotonic() + 0.05))
    end = end_of(read_ends(engine, 1), "only")
    assert isinstance(end, Finished)
    assert (end.finish_reason, end.text) == ("deadline", "w1")


@pytest.mark.parametrize(
    ("key", "code"), [("fail_at", ErrorCode.ENGINE_ERROR), ("memory_error_at", ErrorCode.OUT_OF_MEMORY)]
)
def test_a_scripted_failure_keeps_the_text_before_it(key: str, code: ErrorCode, engine: ScriptedEngine) -> None:
    failed = end_of(run(engine, script(tokens=9, **{key: 4}), DEFAULTS), "only")
    assert isinstance(failed, Failed)
    assert (failed.error.code, failed.text, failed.completion_tokens) == (code, "w1 w2 w3", 3)
    assert finish(engine, script(tokens=1), DEFAULTS).text == "w1"


def test_a_hang_stops_the_whole_engine_until_it_is_closed() -> None:
    engine = ScriptedEngine(SETTINGS)
    engine.submit(engine.prepare("other", script(tokens=100_000), DEFAULTS))
    engine.submit(engine.prepare("hung", script(tokens=9, hang_at=3), DEFAULTS))
    read_until(engine, lambda events: text_of(events, "hung") == "w1 w2")
    while engine.next_step(0.5):
        pass
    still = engine.last_progress()
    assert engine.next_step(0.05) == []
    assert engine.last_progress() == still < time.monotonic()
    engine.close()
    events = read_ends(engine, 2)
    assert {event.id for event in events if isinstance(event, Finished)} == {"hung", "other"}


def test_an_idle_engine_has_just_made_progress(engine: ScriptedEngine) -> None:
    assert abs(time.monotonic() - engine.last_progress()) < 1
    assert engine.last_progress() != -math.inf


def test_a_script_with_an_unknown_word_is_refused(engine: ScriptedEngine) -> None:
    with pytest.raises(VlmqError) as caught:
        engine.prepare("any", script(tokns=4), DEFAULTS)
    assert caught.value.code == ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize(
    "text",
    [
        '{"tokens": "abc"}',
        '{"tokens": 0}',
        '{"tokens": 1000000000000}',
        '{"tokens": true}',
        '{"step_ms": -1}',
        '{"step_ms": NaN}',
        '{"text": 5}',
        '{"fail_at": [1]}',
    ],
)
def test_a_script_with_an_unusable_value_is_refused_by_its_name(engine: ScriptedEngine, text: str) -> None:
    with pytest.raises(VlmqError) as caught:
        engine.prepare("any", ask(text), DEFAULTS)
    assert caught.value.code == ErrorCode.INVALID_REQUEST


def test_text_that_nests_too_deep_to_be_a_script_is_echoed(engine: ScriptedEngine) -> None:
    text = "[" * 50_000
    assert finish(engine, ask(text), DEFAULTS).text == f"echo: {text}"


def test_a_prompt_longer_than_the_context_is_refused() -> None:
    engine = ScriptedEngine(CheckpointSettings("scripted", engine="scripted", max_model_len=3))
    with pytest.raises(VlmqError) as caught:
        engine.prepare("any", ask("one two three four"), DEFAULTS)
    assert caught.value.code == ErrorCode.CONTEXT_LENGTH_EXCEEDED
    engine.close()


def test_a_modality_that_was_switched_off_is_refused() -> None:
    engine = ScriptedEngine(CheckpointSettings("scripted", engine="scripted", modalities=frozenset({"text"})))
    with pytest.raises(VlmqError) as caught:
        prompt = PromptRequest([{"role": "user", "content": [{"type": "image"}]}], [np.zeros((8, 8, 3), np.uint8)])
        engine.prepare("any", prompt, DEFAULTS)
    assert caught.value.code == ErrorCode.UNSUPPORTED_MODALITY
    engine.close()


def run_python(code: str) -> "subprocess.CompletedProcess[str]":
    program = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)


def test_a_scripted_engine_never_imports_torch() -> None:
    done = run_python(
        """
        import sys
        from engine.load import load_engine
        from engine.types import CheckpointSettings, GenerationParameters, PromptRequest
        engine = load_engine(CheckpointSettings("scripted", engine="scripted"))
        prompt = PromptRequest([{"role": "user", "content": "hi"}])
        engine.submit(engine.prepare("a", prompt, GenerationParameters()))
        assert engine.next_step(10)
        engine.close()
        print(sorted({"torch", "transformers", "tokenizers"} & set(sys.modules)))
        """
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_a_scripted_kill_ends_the_process_without_a_goodbye() -> None:
    done = run_python(
        """
        import atexit, json
        from engine.scripted import ScriptedEngine
        from engine.types import CheckpointSettings, GenerationParameters, PromptRequest
        atexit.register(print, "goodbye")
        engine = ScriptedEngine(CheckpointSettings("scripted", engine="scripted"))
        prompt = PromptRequest([{"role": "user", "content": json.dumps({"kill_at": 3})}])
        engine.submit(engine.prepare("a", prompt, GenerationParameters()))
        while True:
            engine.next_step(10)
        """
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("named", "param"),
    [
        ({"num_beams": 2}, "num_beams"),
        ({"logprobs": True}, "logprobs"),
        ({"repetition_penalty": 1.2}, "repetition_penalty"),
        ({"bad_words": ("w2",)}, "bad_words"),
        ({"eos_token_id": (2,)}, "eos_token_id"),
        ({"sequence_bias": (((1,), 1.0),)}, "sequence_bias"),
        ({"suppress_tokens": (1,)}, "suppress_tokens"),
    ],
)
def test_what_a_script_cannot_obey_is_refused(named: dict[str, Any], param: str, engine: ScriptedEngine) -> None:
    with pytest.raises(VlmqError) as caught:
        engine.prepare("any", script(tokens=4), GenerationParameters(**named))
    assert (caught.value.code, caught.value.param) == (ErrorCode.UNSUPPORTED_PARAMETER, f"generation.{param}")


def test_several_texts_of_a_script_are_all_the_same(engine: ScriptedEngine) -> None:
    end = finish(engine, script(tokens=2), GenerationParameters(num_return_sequences=3, do_sample=True))
    assert [output.text for output in end.outputs] == ["w1 w2"] * 3
    assert end.completion_tokens == 6


def test_a_script_can_run_out_of_memory_on_much_media_only(engine: ScriptedEngine) -> None:
    parts = [{"type": "image"}, {"type": "text", "text": json.dumps({"tokens": 1, "memory_error_above_pixels": 64})}]
    for side, kind in ((8, Finished), (9, Failed)):
        prompt = PromptRequest([{"role": "user", "content": parts}], [np.zeros((side, 8, 3), np.uint8)])
        assert isinstance(end_of(run(engine, prompt, DEFAULTS), "only"), kind)
