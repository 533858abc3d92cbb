"""Two tenants, and every endpoint: nothing of one is seen, used, changed or even read for the other."""

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr
from sqlalchemy import event, select

from api.app import create_app
from api.services import EXTENSION, Services
from models.db import Base
from models.delivery import Delivery
from models.file import File
from models.job import Job, JobStatus
from models.template import Template
from tests.api.stand_in import StandIn, png
from vlmq.config import Settings

Header = dict[str, str]
ACME, UMBRELLA = {"Authorization": "Bearer key-a"}, {"Authorization": "Bearer key-u"}
WEBHOOK = {"url": "https://example.com/hook"}
CHAT = {"name": "chat", "kind": "chat", "chat_template": "secret of acme"}
PROMPT = {
    "name": "ask",
    "kind": "prompt",
    "messages": [{"role": "user", "content": [{"type": "image", "variable": "photo"}]}],
    "variables": {"photo": {"type": "image"}},
}
# What everybody may read, with a key or without; and what belongs to nobody.
OPEN = {"/healthz", "/readyz", "/openapi.json", "/", "/docs"}
SHARED = {"GET /v1/models", "GET /v1/models/<path:name>", "GET /metrics"}
# Each tenant has one of its own.
OWN = {"GET /v1/webhook_secret"}


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue({"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]))


@pytest.fixture
def app(settings: Settings) -> Iterator[Flask]:
    keys = {"acme": SecretStr("key-a"), "umbrella": SecretStr("key-u")}
    app = create_app(settings.model_copy(update={"api_keys": keys}))
    yield app
    service: Services = app.extensions[EXTENSION]
    service.close()
    service.database.dispose()


@dataclass
class Owned:
    """What acme has: one of each kind."""

    done: str
    queued: str
    file: str
    inline: str
    delivery: str


@pytest.fixture
def owned(client: FlaskClient, worker: StandIn) -> Owned:
    def made(path: str, **body: Any) -> dict[str, Any]:
        answer = client.post(path, headers=ACME, **body)
        assert answer.status_code in (201, 202), answer.json
        return dict(answer.json or {})

    file = made("/v1/files", data=png(shade=3), content_type="image/png")["id"]
    made("/v1/templates", json=CHAT)
    made("/v1/templates", json=PROMPT)
    done = made("/v1/jobs", json=asking("hello") | {"webhook": WEBHOOK})["id"]
    worker.run(done, "an answer")
    (delivery,) = (client.get("/v1/deliveries", headers=ACME).json or {})["data"]
    image = {"type": "image", "base64": base64.b64encode(png(shade=4)).decode()}
    queued = made("/v1/jobs", json=asking([image]))
    inline = queued["request"]["messages"][0]["content"][0]["file_id"]
    return Owned(done, queued["id"], file, inline, delivery["id"])


def asking(content: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "scripted", "messages": [{"role": "user", "content": content}], **fields}


def by_path(owned: Owned) -> list[tuple[str, str, str]]:
    """Every endpoint that names a thing: its method, its rule, and the path to what acme has."""
    jobs = [
        (method, rule, rule.replace("<job_id>", job))
        for job in (owned.done, owned.queued)
        for method, rule in (
            ("GET", "/v1/jobs/<job_id>"),
            ("GET", "/v1/jobs/<job_id>/events"),
            ("GET", "/v1/jobs/<job_id>/prompt"),
            ("POST", "/v1/jobs/<job_id>/cancel"),
            ("DELETE", "/v1/jobs/<job_id>"),
        )
    ]
    files = [
        (method, rule, rule.replace("<file_id>", file))
        for file in (owned.file, owned.inline)
        for method, rule in (
            ("GET", "/v1/files/<file_id>"),
            ("GET", "/v1/files/<file_id>/content"),
            ("DELETE", "/v1/files/<file_id>"),
        )
    ]
    return [
        *jobs,
        *files,
        ("GET", "/v1/templates/<name>", "/v1/templates/chat"),
        ("GET", "/v1/templates/<name>/versions/<int:version>", "/v1/templates/chat/versions/1"),
        ("DELETE", "/v1/templates/<name>", "/v1/templates/chat"),
        ("GET", "/v1/deliveries/<delivery_id>", f"/v1/deliveries/{owned.delivery}"),
        ("POST", "/v1/deliveries/<delivery_id>/redeliver", f"/v1/deliveries/{owned.delivery}/redeliver"),
    ]


LISTS = ("/v1/jobs", "/v1/templates", "/v1/files", "/v1/deliveries")
MAKERS = ("/v1/jobs", "/v1/templates", "/v1/files", "/v1/prompts/render")


def rows(service: Services) -> list[dict[str, Any]]:
    """All that is stored."""
    with service.database.read() as session:
        found = [thing for table in (Job, File, Template, Delivery) for thing in session.scalars(select(table))]
        return [{column.key: getattr(thing, column.key) for column in thing.__mapper__.column_attrs} for thing in found]


def test_every_endpoint_is_looked_at_here(app: Flask, owned: Owned) -> None:
    looked_at = {f"{method} {rule}" for method, rule, _ in by_path(owned)} | SHARED | OWN
    looked_at |= {f"GET {path}" for path in LISTS} | {f"POST {path}" for path in MAKERS}
    rules = {
        f"{method} {rule.rule}"
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule not in OPEN and not rule.rule.startswith("/docs/")
    }
    assert looked_at == rules


def test_what_another_tenant_has_is_answered_like_what_never_was(
    client: FlaskClient, service: Services, owned: Owned
) -> None:
    before = rows(service)
    read: list[str] = []

    def note(thing: Any, _context: object) -> None:
        read.append(thing.tenant)

    event.listen(Base, "load", note, propagate=True)
    for method, _, path in by_path(owned):
        never = path.replace("chat", "none")
        for id_ in (owned.done, owned.queued, owned.file, owned.inline, owned.delivery):
            never = never.replace(id_, id_[:-32] + "0" * 32)
        assert never != path
        theirs, nothing = (client.open(where, method=method, headers=UMBRELLA) for where in (path, never))
        assert (theirs.status_code, nothing.status_code) == (404, 404), path
        assert without_request(theirs.json) == without_request(nothing.json)
    event.remove(Base, "load", note)
    # How long it takes to read a row tells that there is one.
    assert "acme" not in read
    assert rows(service) == before


def without_request(document: Any) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in ("request_id", "instance")}


def test_without_a_key_each_endpoint_tells_nothing_and_changes_nothing(
    client: FlaskClient, service: Services, owned: Owned
) -> None:
    before = rows(service)
    asked = [(method, path) for method, _, path in by_path(owned)]
    asked += [("GET", path) for path in (*LISTS, "/v1/models", "/v1/models/scripted", "/metrics", "/v1/webhook_secret")]
    asked += [("POST", path) for path in MAKERS]
    asked += [("OPTIONS", "/v1/jobs"), ("PUT", "/v1/jobs"), ("GET", "/v1/nothing"), ("HEAD", f"/v1/jobs/{owned.done}")]
    for method, path in asked:
        for headers in ({}, {"Authorization": "Bearer key"}, {"Authorization": "Bearer key-a, key-u"}):
            answer = client.open(path, method=method, headers=headers, json=asking("x") if method == "POST" else None)
            assert answer.status_code == 401, (method, path)
    assert rows(service) == before


@pytest.mark.parametrize("path", LISTS)
def test_lists_hold_ones_own_whatever_the_filter_and_the_cursor(client: FlaskClient, owned: Owned, path: str) -> None:
    mine = client.get(path, headers=ACME).json
    assert mine is not None
    assert mine["data"]
    last = mine["last_id"]
    queries = ["limit=100", f"after={last[:-32]}{'f' * 32}", f"after={last}"]
    queries += {
        "/v1/jobs": ["status=queued&status=completed", "model=scripted", "created_after=2020-01-01T00:00:00Z"],
        "/v1/templates": ["name=chat"],
        "/v1/deliveries": [f"job_id={owned.done}", "status=pending"],
    }.get(path, [])
    for query in queries:
        theirs = client.get(f"{path}?{query}", headers=UMBRELLA).json
        assert theirs is not None
        assert (theirs["data"], theirs["has_more"], theirs["last_id"]) == ([], False, None), query


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/prompts/render"])
def test_what_another_tenant_has_cannot_be_used_in_a_request(
    client: FlaskClient, service: Services, owned: Owned, path: str
) -> None:
    client.post("/v1/templates", json=PROMPT | {"name": "mine"}, headers=UMBRELLA)
    before = rows(service)
    for file in (owned.file, owned.inline):
        image = {"type": "image", "file_id": file}
        by_variable = {"model": "scripted", "template": {"name": "mine"}, "variables": {"photo": image}}
        for body in (
            asking([image]),
            asking([{"type": "video", "file_id": file}]),
            asking([{"type": "video", "frames": [{"file_id": file}]}]),
            by_variable,
        ):
            refused(client, path, body, file, "file_not_found")
    image = {"type": "image", "url": "https://example.com/a.png"}
    for version in ({}, {"version": 1}):
        refused(client, path, asking("x", chat_template={"name": "chat", **version}), "chat", "not_found")
        by_name = {"model": "scripted", "template": {"name": "ask", **version}, "variables": {"photo": image}}
        refused(client, path, by_name, "ask", "not_found")
    assert rows(service) == before


def refused(client: FlaskClient, path: str, body: dict[str, Any], name: str, code: str) -> None:
    answer, text = client.post(path, json=body, headers=UMBRELLA), str(body)
    assert answer.json is not None
    assert (answer.status_code, answer.json["error"]["code"]) == (422, code), text
    if code == "file_not_found":
        never = client.application.json.loads(client.application.json.dumps(body).replace(name, f"file_{'0' * 32}"))
        nothing = client.post(path, json=never, headers=UMBRELLA).json
        assert without_request(answer.json) == without_request(nothing)


def test_an_idempotency_key_is_its_tenants_own(client: FlaskClient) -> None:
    def make(headers: Header, path: str, body: dict[str, Any]) -> tuple[str, bool]:
        answer = client.post(path, json=body, headers={**headers, "Idempotency-Key": "order-17"})
        assert answer.status_code in (201, 202), answer.json
        return (answer.json or {})["id"], "Idempotency-Replayed" in answer.headers

    mine = make(ACME, "/v1/jobs", asking("hello"))
    theirs = make(UMBRELLA, "/v1/jobs", asking("hello"))
    assert mine[0] != theirs[0]
    assert (mine[1], theirs[1]) == (False, False)
    assert make(UMBRELLA, "/v1/jobs", asking("hello")) == (theirs[0], True)
    # With another body, too, and for another kind.
    client.post("/v1/jobs", json=asking("a"), headers={**ACME, "Idempotency-Key": "two"})
    other = client.post("/v1/templates", json=CHAT, headers={**UMBRELLA, "Idempotency-Key": "two"})
    assert other.status_code == 201


def test_a_name_and_bytes_that_another_tenant_has_are_new_to_this_one(client: FlaskClient, owned: Owned) -> None:
    made = client.post("/v1/templates", json=CHAT, headers=UMBRELLA).json
    assert made is not None
    assert made["version"] == 1
    for shade in (3, 4):
        upload = client.post("/v1/files", data=png(shade=shade), content_type="image/png", headers=UMBRELLA)
        assert upload.json is not None
        assert upload.status_code == 201
        assert upload.json["id"] not in (owned.file, owned.inline)
        assert client.delete(f"/v1/files/{upload.json['id']}", headers=UMBRELLA).status_code == 200
    assert client.get(f"/v1/files/{owned.file}/content", headers=ACME).data == png(shade=3)
    assert client.get(f"/v1/files/{owned.inline}/content", headers=ACME).data == png(shade=4)


def test_each_tenant_has_a_webhook_secret_of_its_own(client: FlaskClient) -> None:
    mine, theirs = (client.get("/v1/webhook_secret", headers=headers).json for headers in (ACME, UMBRELLA))
    assert mine != theirs


def test_what_all_tenants_share_names_none_of_them(client: FlaskClient, owned: Owned) -> None:
    for path in ("/metrics", "/v1/models", "/v1/models/scripted"):
        answer = client.get(path, headers=UMBRELLA)
        assert answer.status_code == 200
        for name in ("acme", "umbrella", owned.done, owned.queued, owned.file, owned.delivery):
            assert name not in answer.get_data(as_text=True)


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/jobs/{}/cancel"), ("DELETE", "/v1/jobs/{}")])
def test_a_job_that_is_locked_is_not_waited_for_by_another_tenant(
    app: Flask, service: Services, owned: Owned, method: str, path: str
) -> None:
    if service.database.engine.dialect.name == "sqlite":
        return  # which has one writer at a time, and no locks on rows
    with ThreadPoolExecutor(1) as pool, service.database.write() as session:
        session.execute(select(Job.id).where(Job.id == owned.queued).with_for_update())
        answer = pool.submit(app.test_client().open, path.format(owned.queued), method=method, headers=UMBRELLA)
        assert answer.result(timeout=5).status_code == 404
    with service.database.read() as session:
        assert session.get_one(Job, owned.queued).status is JobStatus.QUEUED
