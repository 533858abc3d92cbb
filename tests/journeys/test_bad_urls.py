"""Hostile servers behind a job's URLs: the code that the job ends with, and what is never told."""

import gzip
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from pytest_httpserver import HTTPServer

from api.app import create_app
from models.db import Database
from models.job import JobStatus
from tests.media.bombs import FOREIGN
from tests.tasks.rows import get_job, insert_job
from tests.tasks.test_run_job import Desk
from tests.vlmq.test_outbound import OK, drip, raw_server
from vlmq.config import Settings, Timing
from vlmq.events import EventLog
from vlmq.limits import Limits

P = "messages.0.content.0"
TIMES = Timing(lease_s=600, heartbeat_s=300)


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def limited(settings: Settings) -> Settings:
    limits = Limits(max_image_bytes=1_000_000, fetch_timeout_s=1)
    return settings.model_copy(update={"timing": TIMES, "limits": limits})


@pytest.fixture
def desk(limited: Settings, database: Database, event_log: EventLog) -> Iterator[Desk]:
    desk = Desk(limited, database, event_log)
    yield desk
    desk.close()


@pytest.fixture
def client(limited: Settings) -> FlaskClient:
    return create_app(limited).test_client()


def failed(client: FlaskClient, desk: Desk, url: str) -> dict[str, Any]:
    """The error of a job about an image behind the URL."""
    content = [{"type": "image", "url": url}]
    created = client.post("/v1/jobs", json={"model": "scripted", "messages": [{"role": "user", "content": content}]})
    assert created.json is not None
    assert created.status_code == 202, created.json
    assert desk.runner.run_next()
    job = client.get(f"/v1/jobs/{created.json['id']}").json or {}
    assert (job["status"], job["attempts"]) == ("failed", 1)
    assert "127.0.0.1" not in job["error"]["message"]
    error: dict[str, Any] = job["error"]
    return error


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (OK + b"Content-Length: 999999999999\r\n\r\n", "media_too_large"),
        (OK + b"\r\n" + bytes(2_000_000), "media_too_large"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "media_fetch_failed"),
        (b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n", "redirect_refused"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://u:p@example.com/\r\n\r\n", "redirect_refused"),
        (OK + b"\r\n<!doctype html><title>Log in</title>", "unsupported_media_type"),
        (OK + b"\r\n", "image_invalid"),
    ],
)
def test_what_a_server_answers_fails_the_job_with_its_code(
    client: FlaskClient, desk: Desk, answer: bytes, code: str
) -> None:
    with raw_server(lambda connection: connection.sendall(answer)) as url:
        error = failed(client, desk, url)
    assert error["code"] == code
    assert error["param"].startswith(P)


def test_a_gzip_bomb_is_too_large(client: FlaskClient, desk: Desk, httpserver: HTTPServer) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    httpserver.expect_request("/a").respond_with_data(bomb, headers={"Content-Encoding": "gzip"})
    assert failed(client, desk, httpserver.url_for("/a"))["code"] == "media_too_large"


def test_a_server_that_drips_takes_too_long(client: FlaskClient, desk: Desk) -> None:
    with raw_server(drip(OK + b"\r\n")) as url:
        assert failed(client, desk, url)["code"] == "media_timeout"


@pytest.mark.parametrize("media_type", FOREIGN)
def test_other_formats_behind_a_pictures_url_are_refused(
    client: FlaskClient, desk: Desk, httpserver: HTTPServer, media_type: str
) -> None:
    httpserver.expect_request("/cat.png").respond_with_data(FOREIGN[media_type](), content_type="image/png")
    error = failed(client, desk, httpserver.url_for("/cat.png"))
    assert error["code"] == "unsupported_media_type"
    assert media_type in error["message"]


def test_a_name_that_leads_inside_is_blocked_when_the_job_runs(
    limited: Settings, database: Database, event_log: EventLog
) -> None:
    # The door cannot know what a name will resolve to; whoever connects can.
    desk = Desk(limited.model_copy(update={"dev_allow_private_urls": False}), database, event_log)
    content = [{"type": "image", "url": "http://localhost/cat.png"}]
    with socket.create_server(("127.0.0.1", 0)):
        job_id = insert_job(database, request={"messages": [{"role": "user", "content": content}], "generation": {}})
        assert desk.runner.run_next()
    desk.close()
    job = get_job(database, job_id)
    assert (job.status, (job.error or {})["code"]) == (JobStatus.FAILED, "url_blocked")
    assert "127.0.0.1" not in job.error["message"]  # type: ignore[index]
