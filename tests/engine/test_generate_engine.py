import math
import threading
import time

import pytest
import torch

from engine.checkpoint import Checkpoint
from engine.generate_engine import GenerateEngine
from engine.types import Delta, Failed, Finished, GenerationParameters, Started
from tests.engine.listening import ask, end_of, finish, of, read_ends, read_until, run, text_of
from tests.engine.steps import at_step, fail_with
from vlmq.errors import ErrorCode, VlmqError

# As long as a test needs, and never in full.
LONG = GenerationParameters(max_new_tokens=4000, min_new_tokens=4000)
SHORT = GenerationParameters(max_new_tokens=4)


def test_a_running_sequence_ends_within_two_steps_of_its_cancel(engine: GenerateEngine, checkpoint: Checkpoint) -> None:
    with at_step(checkpoint, 5, lambda: engine.cancel("only")) as calls:
        events = run(engine, ask("hello"), LONG)
    end = end_of(events, "only")
    assert isinstance(end, Finished)
    assert end.finish_reason == "cancelled"
    assert len(calls) == end.completion_tokens <= 5 + 2
    assert end.text == text_of(events, "only") != ""


def test_a_waiting_sequence_ends_within_two_steps_of_its_cancel(engine: GenerateEngine, checkpoint: Checkpoint) -> None:
    submitted = threading.Event()

    def cancel_second() -> None:
        assert submitted.wait(30)
        engine.cancel("second")

    with at_step(checkpoint, 3, cancel_second):
        engine.submit(engine.prepare("first", ask("hello"), LONG))
        engine.submit(engine.prepare("second", ask("hello"), LONG))
        submitted.set()
        events = read_ends(engine, 1)
        engine.cancel("first")
        rest = read_ends(engine, 1)
    assert [type(event) for event in of(events, "second")] == [Finished]
    end = end_of(events, "second")
    assert isinstance(end, Finished)
    assert (end.finish_reason, end.text, end.completion_tokens, end.first_token_s) == ("cancelled", "", 0, None)
    assert sum(event.tokens for event in of(events, "first") if isinstance(event, Delta)) <= 3 + 2
    assert end_of(rest, "first").completion_tokens > 0


def test_a_cancel_is_idempotent_and_forgets_strangers(engine: GenerateEngine) -> None:
    engine.cancel("only")
    engine.cancel("nobody")
    assert finish(engine, ask("hello"), SHORT).finish_reason != "cancelled"


def test_a_running_sequence_ends_at_its_deadline_with_its_text(engine: GenerateEngine) -> None:
    engine.submit(engine.prepare("only", ask("hello"), LONG, deadline=time.monotonic() + 0.2))
    events = read_ends(engine, 1)
    end = end_of(events, "only")
    assert isinstance(end, Finished)
    assert end.finish_reason == "deadline"
    assert 0 < end.completion_tokens < 4000
    assert end.text == text_of(events, "only")


def test_a_sequence_whose_deadline_has_passed_never_runs(engine: GenerateEngine) -> None:
    engine.submit(engine.prepare("first", ask("hello"), LONG))
    engine.submit(engine.prepare("late", ask("hello"), SHORT, deadline=time.monotonic()))
    events = read_ends(engine, 1)
    engine.cancel("first")
    read_ends(engine, 1)
    end = end_of(events, "late")
    assert isinstance(end, Finished)
    assert (end.finish_reason, end.completion_tokens) == ("deadline", 0)


def test_the_time_in_the_line_is_not_counted_but_what_comes_after_is(engine: GenerateEngine) -> None:
    began = time.monotonic()
    engine.submit(engine.prepare("first", ask("hello"), LONG))
    for id, parameters in (("short", SHORT), ("long", LONG)):
        engine.submit(engine.prepare(id, ask("hello"), parameters, deadline=time.monotonic() + 0.3))
    # Longer than either may run.
    read_until(engine, lambda _: engine.last_progress() > began + 0.6)
    engine.cancel("first")
    events = read_ends(engine, 3)
    ends = [end_of(events, id) for id in ("short", "long")]
    assert all(isinstance(end, Finished) for end in ends)
    assert [end.finish_reason for end in ends if isinstance(end, Finished)] == ["length", "deadline"]
    assert 0 < ends[1].completion_tokens < 4000


def test_sequences_run_in_the_order_of_their_coming(engine: GenerateEngine) -> None:
    for id in ("a", "b", "c"):
        engine.submit(engine.prepare(id, ask("hello"), SHORT))
    events = read_ends(engine, 3)
    assert [event.id for event in events if isinstance(event, Started)] == ["a", "b", "c"]
    assert all(end_of(events, id).text == text_of(events, id) for id in "abc")


def test_an_id_cannot_live_twice(engine: GenerateEngine) -> None:
    sequence = engine.prepare("twin", ask("hello"), LONG)
    engine.submit(sequence)
    with pytest.raises(ValueError, match="twin"):
        engine.submit(sequence)
    engine.cancel("twin")
    read_ends(engine, 1)


def test_an_error_in_a_step_fails_its_sequence_and_no_other(
    engine: GenerateEngine, checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    with at_step(checkpoint, 4, fail_with(RuntimeError("a secret at /srv/models"))):
        engine.submit(engine.prepare("bad", ask("hello"), LONG))
        engine.submit(engine.prepare("good", ask("hello"), SHORT))
        events = read_ends(engine, 2)
    failed = end_of(events, "bad")
    assert isinstance(failed, Failed)
    assert failed.error.code == ErrorCode.ENGINE_ERROR
    assert failed.error.retryable
    assert "secret" not in failed.error.message
    assert "a secret at /srv/models" in caplog.text
    assert (failed.completion_tokens, failed.text) == (3, text_of(events, "bad"))
    assert isinstance(end_of(events, "good"), Finished)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_running_out_of_memory_has_its_own_code(
    error: Exception, engine: GenerateEngine, checkpoint: Checkpoint
) -> None:
    with at_step(checkpoint, 2, fail_with(error)):
        failed = end_of(run(engine, ask("hello"), LONG), "only")
    assert isinstance(failed, Failed)
    assert failed.error.code == ErrorCode.OUT_OF_MEMORY
    assert isinstance(end_of(run(engine, ask("hello"), SHORT), "only"), Finished)


def test_an_engine_whose_device_is_lost_says_so_and_runs_nothing_more(checkpoint: Checkpoint) -> None:
    engine = GenerateEngine(checkpoint)
    with at_step(checkpoint, 2, fail_with(torch.AcceleratorError("an illegal memory access was encountered"))):
        engine.submit(engine.prepare("bad", ask("hello"), LONG))
        failed = end_of(read_ends(engine, 1), "bad")
    assert isinstance(failed, Failed)
    assert failed.error.retryable
    assert engine.last_progress() == -math.inf
    with pytest.raises(VlmqError):
        engine.submit(engine.prepare("next", ask("hello"), SHORT))
    engine.close()


def test_a_stop_string_ends_the_sequence_before_it(engine: GenerateEngine) -> None:
    parameters = GenerationParameters(max_new_tokens=40, min_new_tokens=40)
    whole = finish(engine, ask("hello"), parameters).text
    stop = whole[4:7]
    cut = finish(engine, ask("hello"), GenerationParameters(max_new_tokens=40, min_new_tokens=40, stop=(stop,)))
    assert cut.finish_reason == "stop"
    assert cut.text == whole[: whole.index(stop)]
    assert cut.completion_tokens < 40


def test_held_back_text_comes_when_the_length_is_reached(engine: GenerateEngine) -> None:
    parameters = GenerationParameters(max_new_tokens=12, min_new_tokens=12)
    whole = finish(engine, ask("hello"), parameters)
    assert whole.finish_reason == "length"
    never = whole.text[-3:] + "\u0001"
    events = run(engine, ask("hello"), GenerationParameters(max_new_tokens=12, min_new_tokens=12, stop=(never,)))
    end = end_of(events, "only")
    assert isinstance(end, Finished)
    assert (end.text, end.finish_reason) == (whole.text, "length")
    assert text_of(events, "only") == whole.text


def test_the_same_seed_gives_the_same_text_and_another_seed_another(random_engine: GenerateEngine) -> None:
    def sample(seed: int | None) -> Finished:
        return finish(random_engine, ask("hello"), GenerationParameters(max_new_tokens=24, temperature=1.0, seed=seed))

    first, other, again = sample(7), sample(8), sample(7)
    assert first.text == again.text != other.text
    assert (first.seed, other.seed) == (7, 8)
    drawn, drawn_too = sample(None), sample(None)
    assert drawn.seed != drawn_too.seed
    assert sample(drawn.seed).text == drawn.text


def test_a_temperature_of_zero_is_greedy(random_engine: GenerateEngine) -> None:
    greedy = finish(random_engine, ask("hello"), GenerationParameters(max_new_tokens=8, do_sample=False))
    cold = finish(random_engine, ask("hello"), GenerationParameters(max_new_tokens=8, temperature=0.0, top_p=0.5))
    assert cold.text == greedy.text
    assert cold.seed is greedy.seed is None


def test_a_repetition_penalty_reaches_the_model(random_engine: GenerateEngine) -> None:
    plain = finish(random_engine, ask("hello"), GenerationParameters(max_new_tokens=12))
    varied = finish(random_engine, ask("hello"), GenerationParameters(max_new_tokens=12, repetition_penalty=5.0))
    assert varied.text != plain.text


def test_the_least_temperature_and_penalty_can_be_drawn_with(random_engine: GenerateEngine) -> None:
    least = GenerationParameters(max_new_tokens=8, temperature=0.01, repetition_penalty=0.01)
    assert finish(random_engine, ask("hello"), least).completion_tokens == 8


def test_timings_are_seconds_from_the_start(engine: GenerateEngine) -> None:
    before = time.monotonic()
    end = finish(engine, ask("hello"), SHORT)
    assert end.first_token_s is not None
    assert 0 < end.first_token_s <= end.generation_s <= time.monotonic() - before


def test_progress_is_now_when_idle_and_stands_still_in_a_step(engine: GenerateEngine, checkpoint: Checkpoint) -> None:
    assert abs(time.monotonic() - engine.last_progress()) < 1
    inside, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        inside.set()
        assert go_on.wait(30)

    with at_step(checkpoint, 3, hang):
        engine.submit(engine.prepare("only", ask("hello"), SHORT))
        assert inside.wait(30)
        first = engine.last_progress()
        assert first == engine.last_progress() < time.monotonic()
        go_on.set()
        read_ends(engine, 1)


def test_closing_ends_everything_as_cancelled(checkpoint: Checkpoint) -> None:
    engine = GenerateEngine(checkpoint)
    engine.submit(engine.prepare("running", ask("hello"), LONG))
    engine.submit(engine.prepare("waiting", ask("hello"), LONG))
    events = read_until(engine, lambda events: any(isinstance(event, Delta) for event in events))
    engine.close()
    events += read_ends(engine, 2)
    ends = [end_of(events, id) for id in ("running", "waiting")]
    assert [end.finish_reason for end in ends if isinstance(end, Finished)] == ["cancelled", "cancelled"]
    assert engine.last_progress() > 0
    with pytest.raises(VlmqError) as caught:
        engine.submit(engine.prepare("late", ask("hello"), SHORT))
    assert caught.value.code == ErrorCode.UNAVAILABLE
