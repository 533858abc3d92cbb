"""The command line against servers that answer with JSON, but not as vlmq does."""

import json
import re
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from tests.cli.test_command_line import MODEL, run
from vlmq.client import Client, ClientError

DEEP = "[" * 100_000 + "]" * 100_000
# Python reads it, and fails where it is to be written again.
DEEPER_THAN_ANY_ANSWER = json.loads("[" * 900 + "]" * 900)
JOB = {"id": "job_1", "status": "completed"}


def answering(server: HTTPServer, answer: Any, status: int = 200) -> str:
    body = answer if isinstance(answer, str) else json.dumps(answer)
    server.expect_request(re.compile(".*")).respond_with_data(body, status=status, content_type="application/json")
    return server.url_for("").rstrip("/")


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (["models", "list"], DEEP),
        (["models", "list"], {"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "somebody"}]}),
        (["models", "list"], {"data": [MODEL | {"details": [1]}]}),
        (["submit", "hello"], {"data": [7]}),
        (["jobs"], {"data": {"a": 1}}),
        (["jobs"], {"data": [JOB]}),
        (["jobs"], {"data": [JOB | {"created_at": "yesterday"}]}),
        (["job", "job_1"], {"id": "job_1"}),
        (["job", "job_1"], JOB | {"error": "no"}),
        (["job", "job_1"], JOB | {"timings": {"total": 10**400}}),
        (["job", "job_1", "--json"], JOB | {"metadata": {"a": DEEPER_THAN_ANY_ANSWER}}),
        (["cancel", "job_1"], {"id": 1, "status": {}}),
    ],
)
def test_json_that_is_not_of_vlmq_is_told_in_one_line(httpserver: HTTPServer, command: list[str], answer: Any) -> None:
    url = answering(httpserver, answer)
    done = run(*command, url=url)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"what answers at {url} is not vlmq; check the address\n"


@pytest.mark.parametrize("answer", [DEEP, {"error": ["no"]}, {"error": {"code": 1, "message": {}}}, [7]])
def test_a_refusal_that_is_not_of_vlmq_still_says_its_status(httpserver: HTTPServer, answer: Any) -> None:
    done = run("jobs", url=answering(httpserver, answer, 500))
    assert (done.returncode, done.stderr) == (1, "HTTP status 500 INTERNAL SERVER ERROR (unknown)\n")


@pytest.mark.parametrize(
    "message",
    [
        "id: 1-1\nevent: delta\ndata: {}\n\n",
        "id: 1-1\nevent: delta\ndata: [1]\n\n",
        "id: 1-1\nevent: status\ndata: {}\n\n",
        "id: 1-1\nevent: progress\ndata: no JSON\n\n",
        f"id: 1-1\nevent: delta\ndata: {DEEP}\n\n",
        'id: one\nevent: delta\ndata: {"text": "a"}\n\n',
        f'id: 1-{"1" * 5000}\nevent: delta\ndata: {{"text": "a"}}\n\n',
        'event: delta\ndata: {"text": "a"}\n\n',
    ],
)
def test_a_stream_that_is_not_of_vlmq_is_said_to_be_so(httpserver: HTTPServer, message: str) -> None:
    httpserver.expect_request("/v1/jobs/job_1/events").respond_with_data(message, content_type="text/event-stream")
    with Client(httpserver.url_for("")) as client, pytest.raises(ClientError, match="is not vlmq; check the address"):
        list(client.events("job_1"))


def test_an_answer_may_say_more_than_the_client_knows(httpserver: HTTPServer) -> None:
    more = JOB | {"error": None, "timings": None, "news": [1], "usage": {"tokens_of_a_new_kind": 5}}
    with Client(answering(httpserver, more)) as client:
        assert client.get("job_1").raw == more
