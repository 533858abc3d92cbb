import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api.schemas import examples
from api.schemas.job_request import EXAMPLE, JobRequest
from api.schemas.problem import Problem
from api.schemas.templates import TemplateRequest


@pytest.fixture
def document(client: FlaskClient) -> dict[str, Any]:
    found = client.get("/openapi.json").json
    assert found is not None
    return dict(found)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def test_every_route_is_documented(app: Flask, document: dict[str, Any]) -> None:
    routes = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if not rule.rule.startswith("/docs") and rule.rule not in ("/", "/openapi.json")
    }
    assert routes == {(path, method) for path, method, _ in operations(document)}


def test_every_operation_has_a_summary_answers_and_described_errors(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.")
    names = []
    for path, method, operation in operations(document):
        assert operation["summary"], (path, method)
        assert operation["description"], (path, method)
        assert operation["tags"], (path, method)
        names.append(operation["operationId"])
        assert any(status.startswith("2") for status in operation["responses"])
        for status, answer in operation["responses"].items():
            assert answer["description"], (path, method, status)
            if int(status) >= 400 and path != "/readyz":
                assert list(answer["content"]) == ["application/problem+json"], (path, method, status)
        for name in re.findall(r"{(\w+)}", path):
            assert {"name": name, "in": "path", "required": True}.items() <= next(
                parameter.items() for parameter in operation["parameters"] if parameter["name"] == name
            )
        if path.startswith("/v1"):
            assert operation["security"] == [{"bearer": []}]
            assert {"401", "500", "503"} <= set(operation["responses"])
    assert len(names) == len(set(names))


def test_an_errors_example_has_its_own_status(document: dict[str, Any]) -> None:
    seen = set()
    for path, method, operation in operations(document):
        for status, answer in operation["responses"].items():
            if int(status) >= 400 and path != "/readyz":
                example = answer["content"]["application/problem+json"]["example"]
                Problem.model_validate(example)
                assert str(example["status"]) == status, (path, method)
                seen.add(status)
    assert {"400", "401", "404", "409", "413", "415", "422", "429", "500", "503"} <= seen


def test_the_documentation_asks_for_a_submitted_job_and_not_for_its_stream(document: dict[str, Any]) -> None:
    # Swagger UI accepts the content of the first 2xx that has any.
    answers = document["paths"]["/v1/jobs"]["post"]["responses"]
    assert [status for status, answer in sorted(answers.items()) if status < "3" and answer.get("content")] == ["202"]
    assert list(answers["202"]["content"]) == ["application/json"]
    assert "text/event-stream" in answers["200"]["description"]


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    found = set(references(document))
    assert found
    assert {reference.removeprefix("#/components/schemas/") for reference in found} <= set(schemas)


def test_the_request_and_the_answers_have_examples(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name in ("JobRequest", "JobAnswer", "FileAnswer", "Problem"):
        assert schemas[name]["examples"], name
    JobRequest.model_validate(EXAMPLE)
    assert schemas["JobRequest"]["additionalProperties"] is False
    assert set(schemas["JobAnswer"]["examples"][0]) <= set(schemas["JobAnswer"]["properties"])


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/v1/jobs", examples.JOBS),
        ("/v1/prompts/render", examples.JOBS),
        ("/v1/templates", examples.TEMPLATES),
    ],
)
def test_bodies_to_begin_with_are_offered_and_valid(document: dict[str, Any], path: str, known: dict[str, Any]) -> None:
    offered = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    assert list(offered["examples"]) == list(known)
    model = TemplateRequest if path == "/v1/templates" else JobRequest
    assert offered["schema"]["$ref"].endswith(f"/{model.__name__}")
    for example in offered["examples"].values():
        assert example["summary"]
        model.model_validate(example["value"])


def test_the_answer_of_a_job_is_as_documented(client: FlaskClient, document: dict[str, Any]) -> None:
    body = {"model": "scripted", "messages": [{"role": "user", "content": "hello"}]}
    made = client.post("/v1/jobs", json=body).json
    assert made is not None
    assert set(made) == set(document["components"]["schemas"]["JobAnswer"]["properties"])


def test_a_job_is_documented_as_json_and_as_a_form_with_files(document: dict[str, Any]) -> None:
    content = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]
    job = {"$ref": "#/components/schemas/JobRequest"}
    assert content["application/json"]["schema"] == job
    form = content["multipart/form-data"]["schema"]
    assert form["required"] == ["job"]
    assert form["additionalProperties"]["format"] == "binary"
    field = form["properties"].pop("job")
    assert (field["type"], field["description"]) == ("string", "A `JobRequest`, as JSON.")
    example = json.loads(field["example"])
    JobRequest.model_validate(example)
    named = {part["upload"] for part in example["messages"][0]["content"] if "upload" in part}
    assert named == set(form["properties"])


@pytest.mark.parametrize("path", ["/", "/docs", "/docs/"])
def test_the_documentation_needs_no_internet(client: FlaskClient, path: str) -> None:
    page = client.get(path, follow_redirects=True).get_data(as_text=True)
    if path != "/docs/":
        sources = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert sources
        for source in sources:
            assert not source.startswith(("http:", "https:", "//"))
            assert client.get(f"/docs/{source}").status_code == 200
    assert client.get("/docs/openapi.json").status_code == 200
