"""Chat templates, prompt templates and prompts that are only rendered, in a worker with a scripted engine."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from media.sandbox import exchange
from models.db import Database
from models.job import Job, JobKind, JobStatus
from tests.processes import until
from tests.tasks.rows import get_job
from tests.tasks.test_run_job import LONG, Desk
from vlmq.config import Settings
from vlmq.events import EventLog
from vlmq.served_model import ServedModel


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def settings(settings: Settings) -> Settings:
    one = ServedModel(checkpoint="scripted", engine="scripted", max_in_flight=1)
    return settings.model_copy(update={"models": {"scripted": one}})


@pytest.fixture
def desk(settings: Settings, database: Database, event_log: EventLog) -> Iterator[Desk]:
    desk = Desk(settings, database, event_log)
    yield desk
    desk.close()


def asking(*texts: str, **request: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": text} for text in texts]
    return {"messages": [{"role": "user", "content": content}], "generation": {}} | request


def run(desk: Desk, request: dict[str, Any], **values: Any) -> Job:
    job_id = desk.submit({}, request=request, **values)
    assert desk.runner.run_next()
    return get_job(desk.database, job_id)


def test_the_prompt_of_a_job_is_kept(desk: Desk) -> None:
    assert run(desk, asking("hello")).prompt == "user: hello"


def test_a_requests_chat_template_is_rendered_with_its_variables(desk: Desk) -> None:
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content[0].text }}{% endfor %}{{ mood }}"
    job = run(desk, asking("hello", chat_template=template, template_kwargs={"mood": "!"}))
    assert (job.status, job.prompt) == (JobStatus.COMPLETED, "<user>hello!")


@pytest.mark.parametrize(
    ("template", "code"),
    [
        ("{{ 'x' * 10**10 }}", "template_limit"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{{ '' }}{% endfor %}{% endfor %}", "template_limit"),
        ("{{ ''['__cl' ~ 'ass__'].x }}", "template_forbidden"),
        ("{{ raise_exception('no') }}", "template_error"),
    ],
)
def test_a_hostile_template_fails_its_job_within_three_seconds(desk: Desk, template: str, code: str) -> None:
    run(desk, asking("warm", chat_template="x"))
    began = time.monotonic()
    job = run(desk, asking("hello", chat_template=template))
    assert time.monotonic() - began < 3
    assert job.error is not None
    assert (job.status, job.error["code"], job.error["param"]) == (JobStatus.FAILED, code, "chat_template")
    assert job.attempts == 1


def test_an_error_that_quotes_what_cannot_be_stored_still_ends_its_job(desk: Desk) -> None:
    script = json.dumps({"\ud800\0": 1})
    job = run(desk, asking(script))
    assert job.error is not None
    assert (job.status, job.attempts, job.error["code"]) == (JobStatus.FAILED, 1, "invalid_request")
    assert "\ufffd" in job.error["message"]


def test_the_texts_of_a_prompt_template_get_their_variables(desk: Desk) -> None:
    variables = {"number": 2, "things": ["a", "b"]}
    job = run(desk, asking("Name {{ number }} {{ things | join(' and ') }}", variables=variables))
    assert job.prompt == "user: Name 2 a and b"
    assert job.output_text == "echo: Name 2 a and b"


def test_a_variable_is_text_and_no_template(desk: Desk) -> None:
    assert run(desk, asking("{{ a }}", variables={"a": "{{ 7 * 7 }}"})).prompt == "user: {{ 7 * 7 }}"


def test_texts_without_variables_are_no_templates(desk: Desk) -> None:
    assert run(desk, asking("{{ 7 * 7 }}")).prompt == "user: {{ 7 * 7 }}"


def test_a_prompt_template_without_measure_is_ended(desk: Desk) -> None:
    job = run(desk, asking("{{ a * 10**9 }}", variables={"a": "x"}))
    assert job.error is not None
    assert (job.error["code"], job.error["param"]) == ("template_limit", "template")


def test_a_shutdown_while_a_prompt_template_is_filled_in_costs_no_attempt(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendering = threading.Event()

    def tell_and_exchange(*arguments: Any) -> dict[str, Any]:
        rendering.set()
        return exchange(*arguments)

    monkeypatch.setattr("media.template_renderer.exchange", tell_and_exchange)
    loops = "{% for a in range(99999) %}{% for b in range(99999) %}{{ '' }}{% endfor %}{% endfor %}"
    job_id = desk.submit({}, request=asking(loops, variables={"number": 1}))
    thread = desk.start()
    assert rendering.wait(20)
    desk.held.drain(0)
    thread.join(20)
    job = get_job(desk.database, job_id)
    assert (job.status, job.attempts, job.error) == (JobStatus.QUEUED, 0, None)


def test_the_full_text_begins_with_the_prompt_in_the_row_and_in_the_stream(desk: Desk) -> None:
    job = run(desk, asking("hello", return_full_text=True))
    assert job.output_text == "user: helloecho: hello"
    until(lambda: any(event.is_final for event in desk.event_log.read(job.id)), what="the last event")
    assert desk.text(job.id) == job.output_text
    assert job.usage is not None
    assert job.usage["completion_tokens"] == 2


def test_each_of_several_full_texts_begins_with_the_prompt(desk: Desk) -> None:
    several = {"do_sample": True, "num_return_sequences": 2}
    job = run(desk, asking("hello", return_full_text=True, generation=several))
    assert job.outputs is not None
    assert [output["text"] for output in job.outputs] == [job.output_text] * 2 == ["user: helloecho: hello"] * 2


def test_rendering_ends_without_generating(desk: Desk) -> None:
    job = run(desk, asking("one two three", generation={"max_new_tokens": 5}), kind=JobKind.RENDER)
    assert (job.status, job.prompt, job.output_text) == (JobStatus.COMPLETED, "user: one two three", "")
    assert job.usage is not None
    assert (job.usage["prompt_tokens"], job.usage["completion_tokens"]) == (3, 0)
    assert job.manifest == {"media": [], "max_new_tokens": 5}


def test_a_prompt_is_rendered_while_the_worker_is_full(desk: Desk) -> None:
    running, thread = desk.start_and_see_text()
    waiting = desk.submit({"tokens": 1})
    assert run(desk, asking("quick"), kind=JobKind.RENDER).status is JobStatus.COMPLETED
    # The worker takes no second job beside the one that runs.
    assert not desk.runner.run_next()
    assert get_job(desk.database, waiting).status is JobStatus.QUEUED
    desk.held.cancel(running)
    thread.join(20)


def test_whoever_leaves_takes_the_job_whose_ring_came_too_early(desk: Desk) -> None:
    def worker() -> None:
        while desk.runner.run_next():
            pass

    running = desk.submit(LONG)
    thread = threading.Thread(target=worker, daemon=True)
    thread.start()
    until(lambda: bool(desk.text(running)), what="the first tokens")
    waiting = desk.submit({"tokens": 1})
    worker()
    desk.held.cancel(running)
    thread.join(20)
    assert get_job(desk.database, waiting).status is JobStatus.COMPLETED
