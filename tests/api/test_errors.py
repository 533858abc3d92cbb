import re
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api.app import create_app
from vlmq.config import Settings


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/nothing", 404, "not_found"),
        ("PUT", "/v1/jobs", 405, "method_not_allowed"),
        ("POST", "/healthz", 405, "method_not_allowed"),
        ("GET", "/v1/jobs?limit=1000", 422, "invalid_request"),
    ],
)
def test_every_error_has_one_form(client: FlaskClient, method: str, path: str, status: int, code: str) -> None:
    answer = client.open(path, method=method)
    assert answer.status_code == status
    assert answer.content_type == "application/problem+json"
    assert answer.json is not None
    assert answer.json["status"] == status
    assert answer.json["type"] == f"urn:vlmq:error:{code}"
    assert answer.json["instance"] == path.partition("?")[0]
    assert answer.json["detail"] == answer.json["error"]["message"]
    assert set(answer.json["error"]) == {"message", "type", "code", "param"}
    assert answer.json["request_id"] == answer.headers["X-Request-ID"]
    if status == 405:
        assert "GET" in answer.headers["Allow"]


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/jobs"), ("POST", "/v1/files"), ("DELETE", "/v1/jobs/job_0")]
)
def test_a_query_parameter_where_none_is_taken_is_refused(client: FlaskClient, method: str, path: str) -> None:
    answer = client.open(f"{path}?wait=5", method=method)
    assert answer.json is not None
    assert answer.status_code == 422
    assert (answer.json["error"]["code"], answer.json["error"]["param"]) == ("unknown_field", "wait")


def test_an_unexpected_error_tells_nothing_but_its_request_id(app: Flask) -> None:
    def fail() -> str:
        raise RuntimeError("/secret/path")

    app.add_url_rule("/fail", "fail", fail)
    answer = app.test_client().get("/fail")
    assert answer.status_code == 500
    assert answer.json is not None
    assert answer.json["error"]["type"] == "server_error"
    assert "secret" not in answer.get_data(as_text=True)
    assert "RuntimeError" not in answer.get_data(as_text=True)


def test_a_database_that_is_away_is_told_as_such(settings: Settings) -> None:
    away = "postgresql://nobody@127.0.0.1:1/none"
    client = create_app(settings.model_copy(update={"database_url": away})).test_client()
    body = {"model": "scripted", "messages": [{"role": "user", "content": "hello"}]}
    for answer in (client.get("/v1/jobs"), client.post("/v1/jobs", json=body)):
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.json is not None
        assert answer.json["error"]["code"] == "unavailable"
        assert "127.0.0.1" not in answer.get_data(as_text=True)


def test_a_database_without_its_schema_is_unavailable(settings: Settings, tmp_path: Path) -> None:
    empty = settings.model_copy(update={"database_url": f"sqlite:///{tmp_path / 'empty.db'}"})
    assert create_app(empty).test_client().get("/v1/jobs").status_code == 503


def test_a_request_keeps_its_id_if_it_is_a_plain_one(client: FlaskClient) -> None:
    given = client.get("/healthz", headers={"X-Request-ID": "trace-1.2_3"})
    assert given.headers["X-Request-ID"] == "trace-1.2_3"
    for bad in ("a b", "a" * 65, "a\tb", "<script>"):
        made = client.get("/healthz", headers={"X-Request-ID": bad}).headers["X-Request-ID"]
        assert re.fullmatch(r"[0-9a-f]{32}", made)


@pytest.mark.parametrize("key", ["", "a" * 256, "a b", "ключ", "a\tb"])
def test_an_idempotency_key_is_short_and_printable(client: FlaskClient, key: str) -> None:
    body = {"model": "scripted", "messages": [{"role": "user", "content": "hello"}]}
    given = key.encode().decode("latin-1")
    answer = client.post("/v1/jobs", json=body, headers={"Idempotency-Key": given})
    assert answer.json is not None
    assert (answer.status_code, answer.json["error"]["param"]) == (422, "Idempotency-Key")
