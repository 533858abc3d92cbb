"""The client against a server that misbehaves."""

import json
import os
import re
import threading
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from vlmq.client import ApiError, Client, ClientError, UnreachableError
from vlmq.free_port import free_port
from vlmq.sse import Message, read_events

STREAM = (
    ": hello\n\nretry: 1000\n\n"
    'id: 1-1\nevent: delta\ndata: {"text": "grüße"}\n\n'
    "id: 1-2\r\nevent: delta\r\ndata: one\r\ndata: two\r\n\r\n"
    "event: broken off\ndata: never"
).encode()


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_events_are_the_same_however_the_bytes_are_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    chunks = [STREAM[start:end] for start, end in pairwise(edges)]
    assert list(read_events(chunks)) == [
        Message("1-1", "delta", '{"text": "grüße"}'),
        Message("1-2", "delta", "one\ntwo"),
    ]


class Sink(BaseHTTPRequestHandler):
    """Takes uploads without keeping them."""

    arrived = 0

    def do_POST(self) -> None:
        left = int(self.headers["Content-Length"])
        while left:
            read = len(self.rfile.read(min(left, 2**16)))
            Sink.arrived += read
            left -= read
        self.send_response(201)
        self.end_headers()
        self.wfile.write(b'{"id": "file_1"}')


def test_a_large_file_is_uploaded_as_it_is_read(tmp_path: Path) -> None:
    size = 64 * 2**20
    with (tmp_path / "film.mp4").open("wb") as file:
        file.truncate(size)
    with ThreadingHTTPServer(("127.0.0.1", 0), Sink) as server:
        threading.Thread(target=server.serve_forever).start()
        with Client(f"http://127.0.0.1:{server.server_port}") as client:
            tracemalloc.start()
            assert client.upload(tmp_path / "film.mp4") == "file_1"
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        server.shutdown()
    assert size < Sink.arrived < size + 1000
    assert peak < size / 8


@pytest.mark.parametrize(
    ("name", "told"),
    [(name, name) for name in ("cat.png", 'a "b"; c.png', "Kätzchen 猫.png")]
    + [(os.fsdecode(b"K\xe4tzchen.png"), "K?tzchen.png")],
)
def test_an_upload_is_a_form_with_the_file_and_its_name(httpserver: HTTPServer, name: str, told: str) -> None:
    found: list[tuple[str | None, bytes]] = []

    def handle(request: Request) -> Response:
        found.extend((file.filename, file.read()) for file in request.files.values())
        return Response('{"id": "file_1"}', content_type="application/json")

    httpserver.expect_request("/v1/files").respond_with_handler(handle)
    with Client(httpserver.url_for("")) as client:
        client.upload(b"\r\n--bytes--\r\n", filename=name)
    assert found == [(told, b"\r\n--bytes--\r\n")]


def frame(number: int, kind: str, data: dict[str, str]) -> str:
    return f"id: 1-{number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n"


def test_a_stream_that_breaks_off_goes_on_where_it_ended(httpserver: HTTPServer) -> None:
    frames = [frame(n, "delta", {"text": str(n)}) for n in range(1, 6)] + [frame(6, "status", {"status": "completed"})]
    asked: list[str | None] = []

    def handle(request: Request) -> Response:
        last = request.headers.get("Last-Event-ID")
        asked.append(last)
        begin = int(last.partition("-")[2]) if last else 0
        # Each connection brings two events and half of a third.
        body = "".join(frames[begin : begin + 2]) + "".join(frames[begin + 2 : begin + 3])[:10]
        return Response(body, content_type="text/event-stream")

    httpserver.expect_request("/v1/jobs/job_1/events").respond_with_handler(handle)
    with Client(httpserver.url_for("")) as client:
        events = list(client.events("job_1"))
    assert [event.id for event in events] == [f"1-{n}" for n in range(1, 7)]
    assert asked == [None, "1-2", "1-4"]


def test_a_job_whose_own_answer_breaks_off_is_followed_on_where_location_says(httpserver: HTTPServer) -> None:
    begun = Response(frame(1, "delta", {"text": "a"}) + "id: 1-2\nev", content_type="text/event-stream")
    begun.headers["Location"] = "/v1/jobs/job_1"
    asked: list[str | None] = []

    def go_on(request: Request) -> Response:
        asked.append(request.headers.get("Last-Event-ID"))
        return Response(frame(2, "status", {"status": "completed"}), content_type="text/event-stream")

    httpserver.expect_request("/v1/jobs", method="POST").respond_with_response(begun)
    httpserver.expect_request("/v1/jobs/job_1/events").respond_with_handler(go_on)
    with Client(httpserver.url_for("")) as client:
        job_id, events = client.submit_and_follow([], model="m")
        assert job_id == "job_1"
        assert [event.id for event in events] == ["1-1", "1-2"]
    assert asked == ["1-1"]


def test_a_job_that_is_answered_without_its_stream_is_followed_all_the_same(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/v1/jobs", method="POST").respond_with_json({"id": "job_1"}, status=202)
    httpserver.expect_request("/v1/jobs/job_1/events").respond_with_data(
        frame(1, "status", {"status": "completed"}), content_type="text/event-stream"
    )
    with Client(httpserver.url_for("")) as client:
        job_id, events = client.submit_and_follow([], model="m")
        assert (job_id, [event.id for event in events]) == ("job_1", ["1-1"])


@pytest.mark.parametrize("answer", [Response("{}", 202), Response("", content_type="text/event-stream")])
def test_a_submission_that_is_not_answered_as_vlmq_does_is_no_stream(httpserver: HTTPServer, answer: Response) -> None:
    httpserver.expect_request("/v1/jobs", method="POST").respond_with_response(answer)
    with Client(httpserver.url_for("")) as client, pytest.raises(ClientError, match="not vlmq"):
        client.submit_and_follow([], model="m")


def test_a_service_that_is_away_for_a_moment_does_not_end_the_stream(httpserver: HTTPServer) -> None:
    stream = Response(frame(1, "status", {"status": "failed"}), content_type="text/event-stream")
    answers = iter([Response(status=503), stream])
    httpserver.expect_request("/v1/jobs/job_1/events").respond_with_handler(lambda _request: next(answers))
    with Client(httpserver.url_for("")) as client:
        assert [event.is_final for event in client.events("job_1")] == [True]


def test_a_stream_that_has_been_read_to_its_end_is_over(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/v1/jobs/job_1/events").respond_with_data(status=204)
    with Client(httpserver.url_for("")) as client:
        assert list(client.events("job_1", after="1-9")) == []


def test_waiting_asks_again_until_the_job_is_final(httpserver: HTTPServer) -> None:
    states: Iterator[str] = iter(["queued", "in_progress", "completed"])
    httpserver.expect_request("/v1/jobs/job_1").respond_with_handler(
        lambda _request: Response(json.dumps({"id": "job_1", "status": next(states)}))
    )
    with Client(httpserver.url_for("")) as client:
        assert client.wait("job_1").status == "completed"


def test_a_job_that_does_not_end_in_time_is_a_timeout(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/v1/jobs/job_1").respond_with_json({"id": "job_1", "status": "queued"})
    with Client(httpserver.url_for("")) as client, pytest.raises(TimeoutError, match="still queued"):
        client.wait("job_1", timeout_s=0)


def test_an_error_that_is_not_ours_still_says_its_status(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/v1/models").respond_with_data("<html>Bad gateway</html>", status=502)
    with Client(httpserver.url_for("")) as client, pytest.raises(ApiError, match="HTTP status 502"):
        client.models()


def test_nothing_at_the_address_is_unreachable() -> None:
    with Client(f"http://127.0.0.1:{free_port('127.0.0.1', 0)}") as client:
        assert not client.ready()
        with pytest.raises(UnreachableError, match="nothing answers"):
            client.models()


def test_the_key_is_sent_with_every_request(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/v1/models", headers={"Authorization": "Bearer k1"}).respond_with_json({"data": []})
    with Client(httpserver.url_for(""), "k1") as client:
        assert client.models() == []


def test_the_key_is_sent_although_netrc_has_a_login_for_the_host(
    httpserver: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    httpserver.expect_request("/v1/models", headers={"Authorization": "Bearer k1"}).respond_with_json({"data": []})
    with Client(httpserver.url_for(""), "k1") as client:
        assert client.models() == []


@pytest.mark.parametrize("job_id", ["", "/", ".", "..", "#", "?limit=1", "a b", "jöb"])
def test_what_is_no_id_of_a_job_is_refused_before_it_is_asked_about(httpserver: HTTPServer, job_id: str) -> None:
    with Client(httpserver.url_for("")) as client:
        for ask in (client.get, client.cancel, client.delete, lambda name: list(client.events(name))):
            with pytest.raises(ClientError, match="no id of a job"):
                ask(job_id)
    assert httpserver.log == []


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8000", "localhost", "ftp://a", "http://", "http://[bad", "http://a:99999", "http://a/?x=1"]
)
def test_an_address_that_cannot_be_one_is_refused(url: str) -> None:
    with pytest.raises(ClientError, match="it takes http://HOST:PORT"):
        Client(url)


@pytest.mark.parametrize("key", ["schlüssel", "one\ntwo", "kłucz"])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ClientError, match="takes printable ASCII") as caught:
        Client(api_key=key)
    assert key not in str(caught.value)


@pytest.mark.parametrize("body", ["<html>Welcome</html>", "[]", "{}", "null"])
def test_an_answer_that_is_not_of_vlmq_is_said_to_be_so(httpserver: HTTPServer, body: str) -> None:
    httpserver.expect_request(re.compile(".*")).respond_with_data(body, content_type="text/html")
    with Client(httpserver.url_for("")) as client:
        for ask in (client.models, client.jobs, lambda: client.get("job_1"), lambda: list(client.events("job_1"))):
            with pytest.raises(ClientError, match="is not vlmq; check the address"):
                ask()


def test_a_number_that_json_lacks_is_not_taken_for_a_service_that_is_away(httpserver: HTTPServer) -> None:
    with Client(httpserver.url_for("")) as client, pytest.raises(ClientError, match="JSON") as caught:
        client.submit([], model="m", generation={"temperature": float("inf")})
    assert not isinstance(caught.value, UnreachableError)


def test_a_server_without_tls_is_not_taken_for_one_that_is_away(httpserver: HTTPServer) -> None:
    with Client(httpserver.url_for("").replace("http:", "https:")) as client, pytest.raises(ClientError, match="TLS"):
        client.models()
