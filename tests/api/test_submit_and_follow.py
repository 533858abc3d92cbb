"""`POST /v1/jobs` that is answered with the job's stream, from the real server."""

import json
from typing import Any

import pytest
import redis
import requests
from urllib3.connection import HTTPConnection

from tests.api.conftest import Server
from tests.api.following import TIMEOUT_S, as_messages, follow_to_end, seen, submit_and_follow, text_of
from vlmq.client import Client
from vlmq.events import Event, EventId

BODY: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "hello"}]}
STREAM = {"Accept": "text/event-stream"}


def post(server: Server, body: dict[str, Any] = BODY, **headers: str) -> requests.Response:
    return requests.post(f"{server.url}/v1/jobs", json=body, headers=headers, timeout=TIMEOUT_S)


def test_the_answer_is_the_jobs_stream_token_by_token(server: Server) -> None:
    with submit_and_follow(server) as (response, messages):
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.headers["X-Accel-Buffering"] == "no"
        assert "Idempotency-Replayed" not in response.headers
        job_id = response.headers["Location"].removeprefix("/v1/jobs/")
        job = server.worker.claim(job_id)
        server.worker.say(job, "one ")
        assert next(messages).data == '{"text": "one "}'
        server.worker.say(job, "two")
        assert next(messages).data == '{"text": "two"}'
        server.worker.end(job, "one two")
        assert json.loads(next(messages).data)["output_text"] == "one two"
        assert list(messages) == []


def test_a_broken_connection_goes_on_where_location_says_without_a_hole_or_a_double(server: Server) -> None:
    with submit_and_follow(server) as (response, messages):
        location = response.headers["Location"]
        job_id = location.removeprefix("/v1/jobs/")
        job = server.worker.claim(job_id)
        said = server.worker.say(job, "a", "b", "c")
        got = [next(messages), next(messages)]
    rest = [*said[2:], server.worker.end(job, "abc")]
    assert seen(got) == as_messages(said[:2])
    assert requests.get(server.url + location, timeout=TIMEOUT_S).json()["status"] == "completed"
    assert seen(follow_to_end(server, job_id, got[-1].id)) == as_messages(rest)


def test_a_reader_who_leaves_does_not_end_the_job(server: Server) -> None:
    with submit_and_follow(server) as (response, _):
        job_id = response.headers["Location"].removeprefix("/v1/jobs/")
    events = server.worker.run(job_id, "still ", "here")
    assert seen(follow_to_end(server, job_id)) == as_messages(events)


def test_the_same_idempotency_key_gives_the_same_jobs_stream_from_its_beginning(server: Server) -> None:
    key = "follow-once"
    with submit_and_follow(server, key=key) as (response, _):
        location = response.headers["Location"]
    events = server.worker.run(location.removeprefix("/v1/jobs/"), "once")
    for _ in range(2):
        with submit_and_follow(server, key=key) as (response, messages):
            assert (response.status_code, response.headers["Idempotency-Replayed"]) == (200, "true")
            assert response.headers["Location"] == location
            assert seen(list(messages)) == as_messages(events)
    # A key that was used with a stream answers one that asks for JSON, and the other way round.
    headers: dict[str, Any] = {"Idempotency-Key": key}
    made = post(server, **headers)
    assert (made.status_code, made.json()["output_text"]) == (202, "once")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({**BODY, "nonsense": 1}, 422, "unknown_field"),
        ({**BODY, "model": "nobody"}, 422, "model_not_found"),
        ({**BODY, "messages": []}, 422, "invalid_request"),
    ],
)
def test_a_refusal_is_an_ordinary_error(server: Server, body: dict[str, Any], status: int, code: str) -> None:
    answer = post(server, body, **STREAM)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert "Location" not in answer.headers


def test_an_idempotency_key_of_another_body_is_refused_as_json(server: Server) -> None:
    with submit_and_follow(server, key="taken"):
        pass
    answer = post(server, {**BODY, "priority": 7}, **STREAM, **{"Idempotency-Key": "taken"})
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "idempotency_mismatch")


@pytest.mark.parametrize(
    "accept",
    [
        "*/*",
        "application/json",
        "application/json, text/event-stream",
        "text/event-stream;q=0.5, application/json",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "text/event-stream;q=0",
        "image/png",
        "garbage",
    ],
)
def test_whoever_does_not_prefer_a_stream_gets_json(server: Server, accept: str) -> None:
    answer = post(server, Accept=accept)
    assert (answer.status_code, answer.headers["Content-Type"]) == (202, "application/json")
    assert answer.json()["status"] == "queued"


@pytest.mark.parametrize("accept", ["text/event-stream, application/json;q=0.9", "text/event-stream, */*;q=0.1"])
def test_whoever_prefers_a_stream_gets_one(server: Server, accept: str) -> None:
    with submit_and_follow(server, accept=accept) as (response, messages):
        assert response.headers["Content-Type"] == "text/event-stream"
        server.worker.run(response.headers["Location"].removeprefix("/v1/jobs/"), "here")
        assert text_of(list(messages)) == "here"


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_beginning_that_was_announced_before_anybody_listened_is_read_from_the_log(
    server: Server, goes_on: bool
) -> None:
    with submit_and_follow(server) as (response, messages):
        job_id = response.headers["Location"].removeprefix("/v1/jobs/")
        job = server.worker.claim(job_id)
        client = redis.Redis.from_url(server.redis_url)
        client.xadd(f"vlmq:job:{job_id}:events", {"type": "delta", "data": '{"text": "one "}'}, id="1-1")
        if goes_on:
            server.worker.event_log.append([(job_id, Event(EventId(1, 2), "delta", {"text": "two"}))])
            assert [next(messages).id, next(messages).id] == ["1-1", "1-2"]
        else:
            server.worker.write_end(job, "one ")
            first, last = messages
            assert (first.id, first.event, last.id, last.event) == ("1-1", "delta", "1-2", "status")


def test_a_beginning_that_nobody_heard_is_told_although_the_job_is_silent_for_long(server: Server) -> None:
    with submit_and_follow(server) as (response, messages):
        job_id = response.headers["Location"].removeprefix("/v1/jobs/")
        job = server.worker.claim(job_id)
        client = redis.Redis.from_url(server.redis_url)
        client.xadd(f"vlmq:job:{job_id}:events", {"type": "status", "data": '{"status": "in_progress"}'}, id="1-1")
        assert next(messages).id == "1-1"
        server.worker.write_end(job, "")


def test_the_client_submits_and_follows_in_one_request(server: Server) -> None:
    with Client(server.url) as client:
        job_id, events = client.submit_and_follow(BODY["messages"], model="scripted")
        server.worker.run(job_id, "a", "b")
        found = list(events)
    assert "".join(event.data["text"] for event in found if event.type == "delta") == "ab"
    assert found[-1].is_final


def test_the_client_keeps_its_connection_from_one_stream_to_the_next(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = HTTPConnection.connect
    connections: list[HTTPConnection] = []

    def count_and_connect(connection: HTTPConnection) -> None:
        connections.append(connection)
        connect(connection)

    monkeypatch.setattr(HTTPConnection, "connect", count_and_connect)
    with Client(server.url) as client:
        for _ in range(3):
            job_id, events = client.submit_and_follow(BODY["messages"], model="scripted")
            server.worker.run(job_id, "a")
            assert list(events)[-1].is_final
    assert len(connections) == 1
