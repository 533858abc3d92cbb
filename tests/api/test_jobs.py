from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr
from sqlalchemy import event, select

from api.app import create_app
from api.services import EXTENSION, Services
from models.delivery import Delivery
from models.job import JobStatus
from tests.api.stand_in import StandIn
from tests.tasks.rows import eventually, get_job
from vlmq.config import Settings
from vlmq.events import CANCEL_CHANNEL, EventLog

BODY: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "hello"}]}


def submit(client: FlaskClient, **fields: Any) -> str:
    answer = client.post("/v1/jobs", json=BODY | fields)
    assert answer.json is not None
    return str(answer.json["id"])


def get(client: FlaskClient, path: str, status: int = 200) -> Any:
    answer = client.get(path)
    assert answer.status_code == status, answer.get_data(as_text=True)
    return answer.json


def test_a_job_shows_its_request_and_its_result(client: FlaskClient, worker: StandIn) -> None:
    job_id = submit(client)
    worker.run(job_id, "a red", " circle")
    job = get(client, f"/v1/jobs/{job_id}")
    assert (job["object"], job["status"], job["output_text"]) == ("job", "completed", "a red circle")
    assert job["request"]["messages"][0]["content"] == [{"type": "text", "text": "hello"}]
    assert job["created_at"] <= job["started_at"] <= job["finished_at"]
    assert job["created_at"].endswith("Z")


def test_a_running_job_is_shown_without_its_text_while_redis_is_away(settings: Settings, worker: StandIn) -> None:
    client = create_app(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})).test_client()
    job_id = submit(client)
    worker.claim(job_id)
    job = get(client, f"/v1/jobs/{job_id}")
    assert (job["status"], job["output_text"]) == ("in_progress", None)


@pytest.mark.parametrize("job_id", ["job_0", "job_" + "0" * 32, "x", "%00", "a%2Fb", "..", "%F0%9F%98%80"])
def test_a_job_that_is_not_there_is_not_found(client: FlaskClient, job_id: str) -> None:
    for answer in (
        client.get(f"/v1/jobs/{job_id}"),
        client.get(f"/v1/jobs/{job_id}/events"),
        client.post(f"/v1/jobs/{job_id}/cancel"),
        client.delete(f"/v1/jobs/{job_id}"),
    ):
        assert answer.status_code in (404, 405)
        assert answer.content_type == "application/problem+json"


def test_cancelling_a_queued_job_ends_it_and_tells_its_stream_and_webhook(
    client: FlaskClient, service: Services, event_log: EventLog
) -> None:
    job_id = submit(client, webhook={"url": "https://example.com/hook"})
    answer = client.post(f"/v1/jobs/{job_id}/cancel")
    assert answer.status_code == 200
    assert answer.json is not None
    assert (answer.json["status"], answer.json["finish_reason"]) == ("cancelled", "cancelled")
    eventually(lambda: [event.data["status"] for event in event_log.read(job_id)] == ["cancelled"])
    with service.database.read() as session:
        (delivery,) = session.scalars(select(Delivery))
    assert delivery.event == "job.cancelled"
    eventually(lambda: service.redis.llen("vlmq.light") == 1)


def test_cancelling_a_running_job_asks_its_worker_and_may_be_repeated(
    client: FlaskClient, service: Services, worker: StandIn
) -> None:
    job_id = submit(client)
    worker.claim(job_id)
    with service.redis.pubsub() as heard:
        heard.subscribe(CANCEL_CHANNEL)
        for _ in range(2):
            answer = client.post(f"/v1/jobs/{job_id}/cancel")
            assert answer.json is not None
            assert (answer.status_code, answer.json["status"]) == (200, "in_progress")
            assert answer.json["cancel_requested"] is True
        told: list[str] = []

        def hear() -> bool:
            message = heard.get_message(timeout=0.1)
            if message is not None and message["type"] == "message":
                told.append(message["data"])
            return bool(told)

        eventually(hear)
    assert told[0] == job_id


def test_cancelling_a_job_that_is_over_leaves_it(client: FlaskClient, worker: StandIn) -> None:
    job_id = submit(client)
    worker.run(job_id, "done")
    answer = client.post(f"/v1/jobs/{job_id}/cancel")
    assert answer.json is not None
    assert (answer.status_code, answer.json["status"], answer.json["output_text"]) == (200, "completed", "done")


def test_only_a_job_that_is_over_can_be_deleted(client: FlaskClient, service: Services, worker: StandIn) -> None:
    job_id = submit(client)
    assert client.delete(f"/v1/jobs/{job_id}").status_code == 409
    job = worker.claim(job_id)
    assert client.delete(f"/v1/jobs/{job_id}").status_code == 409
    assert get_job(service.database, job_id).status is JobStatus.IN_PROGRESS
    worker.end(job, "done")
    answer = client.delete(f"/v1/jobs/{job_id}")
    assert (answer.status_code, answer.json) == (200, {"id": job_id, "object": "job", "deleted": True})
    assert client.get(f"/v1/jobs/{job_id}").status_code == 404
    assert client.delete(f"/v1/jobs/{job_id}").status_code == 404


def test_a_deleted_job_takes_its_stream_and_deliveries_along(
    client: FlaskClient, service: Services, worker: StandIn, event_log: EventLog
) -> None:
    job_id = submit(client, webhook={"url": "https://example.com/hook"})
    worker.run(job_id, "done")
    assert event_log.read(job_id)
    client.delete(f"/v1/jobs/{job_id}")
    eventually(lambda: not event_log.read(job_id))
    with service.database.read() as session:
        assert session.scalars(select(Delivery)).all() == []


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [
        ("limit=0", 422, "limit"),
        ("limit=101", 422, "limit"),
        ("limit=x", 422, "limit"),
        ("status=done", 422, "status.0"),
        ("limit=5&limit=6", 422, "limit"),
        ("created_after=yesterday", 422, "created_after"),
        ("created_after=2026-01-01T00:00:00", 422, "created_after"),
        ("created_after=0001-01-01T00:00:00%2b14:00", 422, "created_after"),
        ("created_before=9999-12-31T23:59:59-12:00", 422, "created_before"),
        ("page=2", 422, "page"),
        ("after=x", 400, "after"),
        ("after=job_1';--", 400, "after"),
        ("model=%00", 422, "model"),
    ],
)
def test_a_wrong_filter_is_named(client: FlaskClient, query: str, status: int, param: str) -> None:
    assert get(client, f"/v1/jobs?{query}", status)["error"]["param"] == param


def test_a_path_of_another_tenant_is_not_found(settings: Settings, app: Flask) -> None:
    keys = {"acme": SecretStr("key-a"), "umbrella": SecretStr("key-u")}
    client = create_app(settings.model_copy(update={"api_keys": keys})).test_client()
    mine, theirs = {"Authorization": "Bearer key-a"}, {"Authorization": "Bearer key-u"}
    made = client.post("/v1/jobs", json=BODY, headers=mine).json
    assert made is not None
    path = f"/v1/jobs/{made['id']}"
    assert client.get(path, headers=mine).status_code == 200
    for answer in (
        client.get(path, headers=theirs),
        client.get(f"{path}?wait=5", headers=theirs),
        client.get(f"{path}/events", headers=theirs),
        client.post(f"{path}/cancel", headers=theirs),
        client.delete(path, headers=theirs),
    ):
        assert answer.status_code == 404
    listed = client.get("/v1/jobs", headers=theirs).json
    assert listed is not None
    assert listed["data"] == []


def test_a_list_does_not_read_what_it_does_not_show(client: FlaskClient, app: Flask) -> None:
    submit(client)
    services: Services = app.extensions[EXTENSION]
    statements: list[str] = []
    event.listen(services.database.engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    assert len(get(client, "/v1/jobs")["data"]) == 1
    (read,) = (statement for statement in statements if "FROM jobs" in statement)
    assert "jobs.output_text" in read
    for column in ("request", "prompt", "outputs"):
        assert f"jobs.{column}," not in read
