"""`POST /v1/prompts/render`: somebody waits for it, and nothing of it is kept."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select

from api.app import create_app
from api.services import EXTENSION, Services
from models.claims import claim_next
from models.db import Database
from models.delivery import Delivery
from models.file import File
from models.job import Job, JobKind, JobStatus, Outcome
from models.lifecycle import finish
from tests.api.bodies import BODY, PNG, errors, with_parts
from tests.api.stand_in import StandIn
from tests.processes import until
from vlmq.config import Settings
from vlmq.errors import ErrorCode, VlmqError

USAGE = {"prompt_tokens": 9, "image_tokens": 4, "video_tokens": 0, "images": 1, "frames": 0}
TIMINGS = {"media": 0.5, "prompt": 0.25, "queued": 0.0, "total": 0.75}
RENDERED = Outcome(
    JobStatus.COMPLETED,
    finish_reason="stop",
    usage=USAGE,
    timings=TIMINGS,
    manifest={"media": [{"type": "image", "width": 1, "height": 1}], "max_new_tokens": 11},
    prompt="<s>hello",
)


@pytest.fixture
def impatient(settings: Settings) -> Iterator[FlaskClient]:
    """A service that waits for half a second."""
    timing = settings.timing.model_copy(update={"max_wait_s": 0.5})
    app: Flask = create_app(settings.model_copy(update={"timing": timing}))
    yield app.test_client()
    service: Services = app.extensions[EXTENSION]
    service.close()
    service.database.dispose()


def count(database: Database, table: Any) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def end_next(worker: StandIn, outcome: Outcome) -> Job:
    """Claim what comes, look at it, and end it so."""
    claimed: list[Job] = []

    def claim() -> bool:
        with worker.database.write() as session:
            job = claim_next(session, model="scripted", worker_id="w1", lease_s=60, renders_only=True)
        claimed.extend([job] if job else [])
        return bool(claimed)

    until(claim, what="a prompt to render")
    (job,) = claimed
    with worker.database.write() as session:
        change = finish(session, job.id, job.attempt, outcome)
    assert change is not None
    worker.emit(job, "status", change.event_data)
    return job


def render(client: FlaskClient, worker: StandIn, body: dict[str, Any], outcome: Outcome = RENDERED) -> tuple[Any, Job]:
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(end_next, worker, outcome)
        answer = client.post("/v1/prompts/render", json=body)
        return answer, job.result(20)


def test_a_prompt_is_rendered_counted_and_forgotten(client: FlaskClient, worker: StandIn, database: Database) -> None:
    body = with_parts({"type": "image", "base64": PNG}, {"type": "text", "text": "x"})
    webhook = {"webhook": {"url": "https://example.com/hook", "events": ["job.completed"]}, "priority": 1}
    answer, job = render(client, worker, body | webhook)
    assert (answer.status_code, answer.json) == (
        200,
        {
            "object": "prompt",
            "model": "scripted",
            "text": "<s>hello",
            "tokens": {"prompt_tokens": 9, "image_tokens": 4, "video_tokens": 0},
            "images": 1,
            "frames": 0,
            "media": [{"type": "image", "width": 1, "height": 1}],
            "max_new_tokens": 11,
            "timings": TIMINGS,
            "estimate_s": None,
        },
    )
    assert (job.kind, job.webhook, job.priority) == (JobKind.RENDER, None, 9)
    assert [count(database, table) for table in (Job, Delivery, File)] == [0, 0, 0]


def test_earlier_jobs_say_how_long_an_answer_would_take(
    client: FlaskClient, worker: StandIn, database: Database
) -> None:
    for first, each in ((1.0, 0.1), (2.0, 0.2), (90.0, 5.0)):
        job = worker.claim(client.post("/v1/jobs", json=BODY).json["id"])  # type: ignore[index]
        timings = {"first_token": first, "generation": first + each * 9}
        outcome = Outcome(JobStatus.COMPLETED, timings=timings, usage={"completion_tokens": 10})
        with database.write() as session:
            finish(session, job.id, job.attempt, outcome)
    answer, _ = render(client, worker, BODY)
    # Media and prompt of this one, the middle first token, and ten more tokens at the middle pace.
    assert answer.json["estimate_s"] == pytest.approx(0.75 + 2.0 + 10 * 0.2)


def test_a_prompt_that_cannot_be_rendered_says_why(client: FlaskClient, worker: StandIn, database: Database) -> None:
    error = VlmqError(ErrorCode.TEMPLATE_LIMIT, "too much", param="chat_template").as_dict()
    answer, _ = render(client, worker, BODY, Outcome(JobStatus.FAILED, error=error))
    assert (answer.status_code, answer.json["error"]) == (422, error)
    assert count(database, Job) == 0


def test_a_bad_body_is_refused_as_a_jobs_is(client: FlaskClient, database: Database) -> None:
    status, found = errors(client, BODY | {"template_kwargs": {"tokenize": True}}, "/v1/prompts/render")
    assert (status, found) == (422, [("invalid_request", "template_kwargs.tokenize")])
    assert count(database, Job) == 0


def test_without_a_worker_the_wait_ends_and_nothing_is_left(impatient: FlaskClient, database: Database) -> None:
    answer = impatient.post("/v1/prompts/render", json=BODY)
    assert answer.json is not None
    assert (answer.status_code, answer.json["error"]["code"]) == (503, "unavailable")
    assert count(database, Job) == 0


def test_a_worker_that_takes_too_long_is_told_to_stop(
    impatient: FlaskClient, worker: StandIn, database: Database
) -> None:
    claimed = threading.Event()

    def claim() -> None:
        def try_it() -> bool:
            with database.write() as session:
                return claim_next(session, model="scripted", worker_id="w1", lease_s=60) is not None

        until(try_it, what="a claim")
        claimed.set()

    thread = threading.Thread(target=claim)
    thread.start()
    assert impatient.post("/v1/prompts/render", json=BODY).status_code == 503
    thread.join(20)
    with database.read() as session:
        (job,) = session.scalars(select(Job))
    assert job.cancel_requested_at is not None


def test_prompts_being_rendered_are_no_jobs_to_list(client: FlaskClient, database: Database) -> None:
    job_id = client.post("/v1/jobs", json=BODY).json["id"]  # type: ignore[index]
    client.post("/v1/jobs", json=BODY)
    with database.write() as session:
        session.get_one(Job, job_id).kind = JobKind.RENDER
    assert len(client.get("/v1/jobs").json["data"]) == 1  # type: ignore[index]
