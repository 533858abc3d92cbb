import json
import socket
import time
from urllib.parse import urlsplit

import pytest
from flask.testing import FlaskClient

from api.app import create_app
from api.json_body import parse_json_object
from tests.api.conftest import Server
from vlmq.config import Settings
from vlmq.errors import ErrorCode, VlmqError
from vlmq.limits import Limits

OPENING = b'{"model": "scripted", "messages": [{"role": "user", "content": '


def post(client: FlaskClient, body: bytes, content_type: str = "application/json") -> tuple[int, str, str]:
    answer = client.post("/v1/jobs", data=body, content_type=content_type)
    assert answer.json is not None
    return answer.status_code, answer.json["error"]["code"], answer.json["detail"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "not JSON"),
        (b"{", "line 1, column 2"),
        (b'{"model": "a", "model": "b"}', '"model" stands twice'),
        (OPENING + b'[{"type": "text", "text": "a", "text": "b"}]}]}', '"text" stands twice'),
        (b'{"priority": NaN}', "NaN"),
        (b'{"priority": -Infinity}', "-Infinity"),
        (b'{"priority": ' + b"9" * 5000 + b"}", "digits"),
        (b'{"a": ' + b"[" * 33 + b"]" * 33 + b"}", "32 levels"),
        (b'{"a": ' + b"[" * 40_000 + b"]" * 40_000 + b"}", "32 levels"),
        (b'{"a":' * 40_000 + b"1" + b"}" * 40_000, "32 levels"),
        (b'{"model": "\xff\xfe"}', "UTF-8"),
        ('{"model": "scripted"}'.encode("utf-16"), "UTF-8"),
        (b"\xef\xbb\xbf{}", "not JSON"),
    ],
)
def test_json_that_cannot_be_read_in_one_way_only_is_refused(client: FlaskClient, body: bytes, told: str) -> None:
    status, code, detail = post(client, body)
    assert (status, code) == (400, "invalid_json")
    assert told in detail


@pytest.mark.parametrize("body", [b"[]", b"null", b"5", b'"{\\"model\\": \\"scripted\\"}"'])
def test_a_body_that_is_no_object_is_refused(client: FlaskClient, body: bytes) -> None:
    assert post(client, body)[:2] == (422, "invalid_request")


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": [' + b"[]," * 2_000_000 + b"[]]}",
        b'{"a": [' + b"1," * 60_000 + b"1]}",
        json.dumps({str(number): 1 for number in range(60_000)}).encode(),
        OPENING + b"[" + b"{}," * 60_000 + b"{}]}]}",
    ],
)
def test_a_bomb_of_many_small_values_is_refused(client: FlaskClient, body: bytes) -> None:
    status, code, detail = post(client, body)
    assert (status, code) == (422, "invalid_request")
    assert "values" in detail


def test_a_bomb_costs_no_parsing() -> None:
    body = b'{"a": [' + b"1.5," * 900_000 + b'"\\\\\\",\\\\"]}'
    started = time.process_time()
    with pytest.raises(VlmqError) as refusal:
        parse_json_object(body, Limits())
    assert refusal.value.code is ErrorCode.INVALID_REQUEST
    assert time.process_time() - started < 0.2


def test_a_text_with_many_commas_quotes_and_backslashes_is_taken() -> None:
    value = {"text": '1,["{\\' * 150_000, "more": "\\"}
    assert parse_json_object(json.dumps(value).encode(), Limits()) == value


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (OPENING + b'"a\\u0000b"}]}', "messages.0.content"),
        (OPENING + b'"a\\ud800b"}]}', "messages.0.content"),
        (b'{"metadata": {"a\\u0000": "b"}}', "metadata"),
        (b'{"metadata": {"a": "\\udfff"}}', "metadata.a"),
    ],
)
def test_text_that_cannot_be_stored_is_refused(client: FlaskClient, body: bytes, param: str) -> None:
    answer = client.post("/v1/jobs", data=body, content_type="application/json")
    assert answer.json is not None
    assert (answer.status_code, answer.json["error"]["param"]) == (422, param)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (OPENING + b'"a"}], "template_kwargs": {"a": [0, 1e400]}}', "template_kwargs.a.1"),
        (OPENING + b'"a"}], "generation": {"temperature": -1e999999}}', "generation.temperature"),
    ],
)
def test_a_number_beyond_all_floats_is_refused(client: FlaskClient, body: bytes, param: str) -> None:
    answer = client.post("/v1/jobs", data=body, content_type="application/json")
    assert answer.json is not None
    assert (answer.status_code, answer.json["error"]["param"]) == (422, param)


def test_a_pair_of_surrogates_is_one_character(client: FlaskClient) -> None:
    answer = client.post("/v1/jobs", data=OPENING + b'"\\ud83d\\ude00"}]}', content_type="application/json")
    assert answer.status_code == 202
    assert answer.json is not None
    assert answer.json["request"]["messages"][0]["content"][0]["text"] == "😀"


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_another_content_type_is_refused(client: FlaskClient, content_type: str) -> None:
    assert post(client, b"{}", content_type)[:2] == (415, "unsupported_media_type")


def test_a_body_over_the_limit_is_refused(settings: Settings) -> None:
    client = create_app(settings.model_copy(update={"limits": Limits(max_body_bytes=1000)})).test_client()
    assert post(client, OPENING + b'"' + b"a" * 1000 + b'"}]}')[:2] == (413, "body_too_large")


@pytest.mark.parametrize("chunk", [b"ZZ\r\n", b"5\r\n{    XX"], ids=["size", "end"])
@pytest.mark.parametrize(
    ("path", "content_type"), [("/v1/jobs", b"application/json"), ("/v1/files", b"image/png")], ids=["job", "file"]
)
def test_a_malformed_chunk_is_refused_and_ends_the_connection(
    server: Server, path: str, content_type: bytes, chunk: bytes
) -> None:
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as connection:
        connection.sendall(
            b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n%s"
            % (path.encode(), content_type, chunk)
        )
        answer = b"".join(iter(lambda: connection.recv(10_000), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nconnection: close" in head.lower()
    assert json.loads(body)["error"]["code"] == "invalid_request"


def test_a_chunked_body_over_the_limit_is_refused_while_it_arrives(server: Server) -> None:
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as connection:
        connection.sendall(
            b"POST /v1/jobs HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        # Twice the limit of the server in the fixture, and no end.
        for _ in range(20):
            connection.sendall(b"186a0\r\n" + b"a" * 100_000 + b"\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")
