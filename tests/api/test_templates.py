"""`/v1/templates`: stored, versioned, and refused where they cannot work."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr

from api.app import create_app
from api.schemas.templates import EXAMPLE
from tests.api.bodies import PNG, errors
from vlmq.config import Settings

CHAT = {"name": "llama", "kind": "chat", "chat_template": "{% for m in messages %}{{ m.role }}{% endfor %}"}


def prompt(**fields: Any) -> dict[str, Any]:
    body = {"name": "ask", "kind": "prompt", "messages": [{"role": "user", "content": "{{ question }}"}]}
    return body | {"variables": {"question": {"type": "string"}}} | fields


def declaring(**variable: Any) -> dict[str, Any]:
    return prompt(variables={"question": variable})


def create(client: FlaskClient, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    answer = client.post("/v1/templates", json=body, headers=headers)
    assert answer.status_code == 201, answer.json
    return dict(answer.json or {})


def get(client: FlaskClient, path: str) -> dict[str, Any]:
    answer = client.get(path)
    assert answer.status_code == 200, answer.json
    return dict(answer.json or {})


def test_a_template_is_stored_and_found_by_its_name(client: FlaskClient) -> None:
    made = client.post("/v1/templates", json=EXAMPLE)
    assert (made.status_code, made.headers["Location"]) == (201, "/v1/templates/describe/versions/1")
    found = get(client, "/v1/templates/describe")
    assert found == made.json
    assert {name: found[name] for name in ("object", "name", "version", "kind")} == {
        "object": "template",
        "name": "describe",
        "version": 1,
        "kind": "prompt",
    }
    assert found["messages"] == EXAMPLE["messages"]
    assert found["generation"] == {"max_new_tokens": 128}


def test_the_same_name_again_makes_the_next_version_and_the_first_stays(client: FlaskClient) -> None:
    create(client, CHAT)
    second = create(client, CHAT | {"chat_template": "{{ bos_token }}"})
    assert second["version"] == 2
    assert get(client, "/v1/templates/llama")["chat_template"] == "{{ bos_token }}"
    assert get(client, "/v1/templates/llama/versions/1")["chat_template"] == CHAT["chat_template"]
    assert client.get("/v1/templates/llama/versions/3").status_code == 404


def test_the_list_has_the_newest_of_each_or_all_of_one(client: FlaskClient) -> None:
    for body in (CHAT, prompt(), CHAT, CHAT):
        create(client, body)
    newest = get(client, "/v1/templates")["data"]
    assert [(item["name"], item["version"]) for item in newest] == [("llama", 3), ("ask", 1)]
    first = get(client, "/v1/templates?name=llama&limit=2")
    assert [item["version"] for item in first["data"]] == [3, 2]
    rest = get(client, f"/v1/templates?name=llama&after={first['last_id']}")
    assert ([item["version"] for item in rest["data"]], rest["has_more"]) == ([1], False)


def test_a_template_is_deleted_with_all_its_versions(client: FlaskClient) -> None:
    create(client, CHAT)
    create(client, CHAT)
    assert client.delete("/v1/templates/llama").json == {"id": "llama", "object": "template", "deleted": True}
    assert client.get("/v1/templates/llama").status_code == 404
    assert client.delete("/v1/templates/llama").status_code == 404


def test_an_idempotency_key_makes_one_version(client: FlaskClient) -> None:
    key = {"Idempotency-Key": "once"}
    first = client.post("/v1/templates", json=CHAT, headers=key)
    again = client.post("/v1/templates", json=CHAT, headers=key)
    assert (again.status_code, again.json) == (201, first.json)
    assert again.headers["Idempotency-Replayed"] == "true"
    other = client.post("/v1/templates", json=prompt(), headers=key)
    assert (other.status_code, other.json and other.json["error"]["code"]) == (422, "idempotency_mismatch")
    client.delete("/v1/templates/llama")
    assert client.post("/v1/templates", json=CHAT, headers=key).status_code == 409


def test_templates_are_their_tenants_own(settings: Settings) -> None:
    keys = {"a": SecretStr("key-of-a-0123456789"), "b": SecretStr("key-of-b-0123456789")}
    app: Flask = create_app(settings.model_copy(update={"api_keys": keys}))
    as_a, as_b = ({"Authorization": f"Bearer {key.get_secret_value()}"} for key in keys.values())
    client = app.test_client()
    assert client.post("/v1/templates", json=CHAT, headers=as_a).status_code == 201
    assert client.get("/v1/templates/llama", headers=as_b).status_code == 404
    assert client.delete("/v1/templates/llama", headers=as_b).status_code == 404
    body = {"model": "scripted", "messages": [{"role": "user", "content": "x"}], "chat_template": {"name": "llama"}}
    assert client.post("/v1/jobs", json=body, headers=as_b).status_code == 422
    assert client.post("/v1/templates", json=CHAT, headers=as_b).json["version"] == 1  # type: ignore[index]


PLACE = "messages.0.content.0.variable"
V = "variables.question"
IMAGE = {"role": "user", "content": [{"type": "image", "variable": "photo"}]}


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (CHAT | {"name": "../x"}, "invalid_request", "name"),
        (CHAT | {"name": "a\nb"}, "invalid_request", "name"),
        (CHAT | {"name": "x" * 65}, "invalid_request", "name"),
        (CHAT | {"kind": "other"}, "invalid_request", "kind"),
        (CHAT | {"chat_template": None}, "invalid_request", "chat_template"),
        (CHAT | {"chat_template": "x" * 50_001}, "invalid_request", "chat_template"),
        (CHAT | {"messages": []}, "invalid_request", "messages"),
        (CHAT | {"generation": {"seed": 1}}, "invalid_request", "generation"),
        (CHAT | {"chat_template": "{% if %}"}, "template_error", "chat_template"),
        (CHAT | {"chat_template": "{{ messages.__class__ }}"}, "template_forbidden", "chat_template"),
        (CHAT | {"chat_template": "{{ lipsum.__globals__ }}"}, "template_forbidden", "chat_template"),
        (CHAT | {"chat_template": "{{ 'a' | attr('b') }}"}, "template_forbidden", "chat_template"),
        (CHAT | {"chat_template": "{% include 'b' %}"}, "template_forbidden", "chat_template"),
        (CHAT | {"chat_template": "{{" + "(" * 20_000 + ")" * 20_000 + "}}"}, "template_limit", "chat_template"),
        (CHAT | {"version": 3}, "unknown_field", "version"),
        (prompt(messages=[]), "invalid_request", "messages"),
        (prompt(messages=[{"role": "user", "content": "x" * 30_000}] * 2), "invalid_request", "messages"),
        (prompt(chat_template="x"), "invalid_request", "chat_template"),
        (prompt(messages=[{"role": "user", "content": "{{ answer }}"}]), "template_error", "messages.0.content"),
        (
            prompt(messages=[{"role": "user", "content": [{"type": "text", "text": "{{ x.__class__ }}"}]}]),
            "template_forbidden",
            "messages.0.content.0.text",
        ),
        (prompt(messages=[IMAGE]), "invalid_request", PLACE),
        (prompt(messages=[IMAGE], variables={"photo": {"type": "video"}}), "invalid_request", PLACE),
        (
            prompt(variables={"question": {"type": "string"}, "photo": {"type": "image"}}),
            "invalid_request",
            "variables.photo",
        ),
        (declaring(type="enum"), "invalid_request", f"{V}.values"),
        (declaring(type="number", values=["1"]), "invalid_request", f"{V}.values"),
        (declaring(type="string", default="x"), "invalid_request", f"{V}.default"),
        (declaring(type="string", required=False, default="x" * 50_001), "invalid_request", f"{V}.default"),
        (
            declaring(type="number", required=False, default=True),
            "invalid_request",
            f"{V}.default",
        ),
        (prompt(variables={"2question": {"type": "string"}}), "invalid_request", "variables.2question"),
        (declaring(type="string", size=1), "unknown_field", f"{V}.size"),
        (prompt(generation={"temperature": 9}), "invalid_request", "generation.temperature"),
    ],
)
def test_a_template_that_cannot_work_is_refused(
    client: FlaskClient, body: dict[str, Any], code: str, param: str
) -> None:
    status, found = errors(client, body, "/v1/templates")
    assert (status, found[0]) == (422, (code, param))
    assert get(client, "/v1/templates")["data"] == []


def test_the_examples_of_the_documentation_are_taken(client: FlaskClient) -> None:
    text = (Path(__file__).parents[2] / "docs" / "templates.md").read_text(encoding="utf-8")
    found = re.findall(r"curl localhost:8000(/v1/\w+) -H '[^']+' -d '(.*?)'\n", text, re.DOTALL)
    whole = [(path, json.loads(body)) for path, body in found if "…" not in body.replace("file_…", "")]
    assert [path for path, _ in whole] == ["/v1/jobs", "/v1/templates", "/v1/jobs"]
    for path, body in whole:
        for variable in body.get("variables", {}).values():
            if "file_id" in variable:
                variable.update(base64=PNG, file_id=None)
        answer = client.post(path, json=body | ({"model": "scripted"} if path == "/v1/jobs" else {}))
        assert answer.status_code in (201, 202), answer.json
