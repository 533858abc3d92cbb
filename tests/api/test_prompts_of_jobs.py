"""What a job says about its prompt: chat templates, variables, and what is refused at the door."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from api.schemas.templates import EXAMPLE
from models.db import Database
from models.job import JobStatus, Outcome
from models.lifecycle import finish
from tests.api.bodies import BODY, PNG, errors
from tests.api.stand_in import StandIn
from tests.api.test_templates import CHAT, create, prompt
from tests.vlmq.test_chat_templates import GUIDE

PHOTO = {"type": "image", "url": "http://e.com/a.png"}


def submit(client: FlaskClient, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/v1/jobs", json=body)
    assert answer.status_code == 202, answer.json
    return dict((answer.json or {})["request"])


def with_template(name: str = "describe", **variables: Any) -> dict[str, Any]:
    return {"model": "scripted", "template": {"name": name}, "variables": variables}


def test_what_is_said_about_the_prompt_is_stored_for_the_worker(client: FlaskClient) -> None:
    said = {"chat_template": GUIDE, "template_kwargs": {"date": "today", "deep": [1]}, "return_full_text": True}
    assert submit(client, BODY | said).items() >= said.items()


def test_a_stored_chat_template_is_copied_into_the_job(client: FlaskClient) -> None:
    create(client, CHAT)
    create(client, CHAT | {"chat_template": "second"})
    assert (
        submit(client, BODY | {"chat_template": {"name": "llama", "version": 1}})["chat_template"]
        == CHAT["chat_template"]
    )
    assert submit(client, BODY | {"chat_template": {"name": "llama"}})["chat_template"] == "second"


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"chat_template": "{% for %}"}, "template_error", "chat_template"),
        ({"chat_template": "{{ x.__class__ }}"}, "template_forbidden", "chat_template"),
        ({"chat_template": "{{ lipsum.__globals__ }}"}, "template_forbidden", "chat_template"),
        ({"chat_template": "{{ x | attr('y') }}"}, "template_forbidden", "chat_template"),
        ({"chat_template": "{% include 'x' %}"}, "template_forbidden", "chat_template"),
        ({"chat_template": "{% if a %}" * 2000 + "{% endif %}" * 2000}, "template_limit", "chat_template"),
        ({"chat_template": ""}, "invalid_request", "chat_template"),
        ({"chat_template": 7}, "invalid_request", "chat_template"),
        ({"chat_template": {"name": "gone"}}, "not_found", "chat_template"),
        ({"chat_template": {"name": "ask"}}, "invalid_request", "chat_template"),
        ({"chat_template": {"name": "llama", "version": 9}}, "not_found", "chat_template"),
        ({"chat_template": {"id": "x"}}, "invalid_request", "chat_template.name"),
        ({"template_kwargs": {"chat_template": "x"}}, "invalid_request", "template_kwargs.chat_template"),
        ({"template_kwargs": {"tokenize": True}}, "invalid_request", "template_kwargs.tokenize"),
        ({"template_kwargs": {"self": 1}}, "invalid_request", "template_kwargs.self"),
        ({"template_kwargs": {"not a name": 1}}, "invalid_request", "template_kwargs.not a name"),
        ({"template_kwargs": {"__class__": 1}}, "invalid_request", "template_kwargs.__class__"),
        ({"template_kwargs": []}, "invalid_request", "template_kwargs"),
        ({"return_full_text": "yes"}, "invalid_request", "return_full_text"),
        ({"template": {"name": "ask"}}, "invalid_request", "template"),
        ({"variables": {"a": 1}}, "invalid_request", "variables"),
    ],
)
def test_a_prompt_that_cannot_work_is_refused(
    client: FlaskClient, fields: dict[str, Any], code: str, param: str
) -> None:
    create(client, CHAT)
    create(client, prompt())
    status, found = errors(client, BODY | fields)
    assert (status, found[0]) == (422, (code, param))
    assert client.get("/v1/jobs").json["data"] == []  # type: ignore[index]


def test_a_stored_prompt_becomes_messages_with_places_for_its_variables(client: FlaskClient) -> None:
    create(client, EXAMPLE)
    body = with_template(photo=PHOTO, thing="red cat") | {"generation": {"seed": 7}}
    assert submit(client, body) == {
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "Answer in {{ language }}."}]},
            {
                "role": "user",
                "content": [{"type": "image", "url": "http://e.com/a.png"}, EXAMPLE["messages"][1]["content"][1]],
            },
        ],
        "generation": {"max_new_tokens": 128, "seed": 7},
        "template": {"name": "describe", "version": 1},
        "variables": {"language": "English", "thing": "red cat"},
    }


def test_a_medium_that_is_not_required_may_be_left_out(client: FlaskClient) -> None:
    variables = EXAMPLE["variables"] | {"photo": {"type": "image", "required": False}}
    create(client, EXAMPLE | {"variables": variables})
    content = submit(client, with_template())["messages"][1]["content"]
    assert [part["type"] for part in content] == ["text"]


def test_leaving_out_all_that_a_prompt_holds_is_refused_by_the_variables_name(client: FlaskClient) -> None:
    messages = [{"role": "user", "content": [{"type": "image", "variable": "photo"}]}]
    create(client, prompt(messages=messages, variables={"photo": {"type": "image", "required": False}}))
    assert errors(client, with_template("ask")) == (422, [("invalid_request", "variables.photo")])


def test_an_inline_image_can_be_a_variable(client: FlaskClient) -> None:
    create(client, EXAMPLE)
    (image, _) = submit(client, with_template(photo={"type": "image", "base64": PNG}))["messages"][1]["content"]
    assert image["file_id"].startswith("file_")


@pytest.mark.parametrize(
    ("variables", "code", "param"),
    [
        ({}, "invalid_request", "variables.photo"),
        ({"photo": None}, "invalid_request", "variables.photo"),
        ({"photo": "a.png"}, "invalid_request", "variables.photo"),
        ({"photo": {"type": "video", "url": "http://e.com/a.mp4"}}, "invalid_request", "variables.photo"),
        ({"photo": {"type": "text", "text": "x"}}, "invalid_request", "variables.photo"),
        ({"photo": {"type": "scene"}}, "invalid_request", "variables.photo.type"),
        ({"photo": {"type": "image"}}, "invalid_request", "variables.photo"),
        ({"photo": PHOTO | {"crop": 1}}, "unknown_field", "variables.photo.crop"),
        ({"photo": {"type": "image", "url": "file:///etc/passwd"}}, "url_blocked", "variables.photo.url"),
        ({"photo": {"type": "image", "base64": "?"}}, "invalid_request", "variables.photo.base64"),
        ({"photo": {"type": "image", "file_id": "file_none"}}, "file_not_found", "variables.photo.file_id"),
        ({"photo": PHOTO, "language": "French"}, "invalid_request", "variables.language"),
        ({"photo": PHOTO, "thing": 7}, "invalid_request", "variables.thing"),
        ({"photo": PHOTO, "ting": "x"}, "unknown_field", "variables.ting"),
    ],
)
def test_a_variable_that_does_not_fit_is_refused_by_name(
    client: FlaskClient, variables: dict[str, Any], code: str, param: str
) -> None:
    create(client, EXAMPLE)
    status, found = errors(client, with_template(**variables))
    assert (status, found) == (422, [(code, param)])


def test_generation_that_contradicts_the_templates_own_is_refused(client: FlaskClient) -> None:
    create(client, EXAMPLE)
    body = with_template(photo=PHOTO) | {"generation": {"min_new_tokens": 200}}
    assert errors(client, body) == (422, [("invalid_request", "generation")])


def test_the_jobs_own_value_counts_by_whatever_name_it_is_sent(client: FlaskClient) -> None:
    create(client, EXAMPLE | {"generation": {"max_tokens": 128, "stop": ["a"], "temperature": 0.5}})
    body = with_template(photo=PHOTO) | {"generation": {"max_new_tokens": 5, "stop_strings": "b"}}
    assert submit(client, body)["generation"] == {"max_new_tokens": 5, "stop": ["b"], "temperature": 0.5}


def test_a_job_needs_messages_or_a_template(client: FlaskClient) -> None:
    assert errors(client, {"model": "scripted"}) == (422, [("invalid_request", "messages")])
    assert errors(client, with_template("gone")) == (422, [("not_found", "template")])


def test_the_prompt_of_a_job_is_shown_when_it_is_over(client: FlaskClient, worker: StandIn, database: Database) -> None:
    job_id = client.post("/v1/jobs", json=BODY).json["id"]  # type: ignore[index]
    assert client.get(f"/v1/jobs/{job_id}/prompt").status_code == 409
    job = worker.claim(job_id)
    usage = {"prompt_tokens": 9, "image_tokens": 4, "video_tokens": 0, "completion_tokens": 1}
    outcome = Outcome(JobStatus.COMPLETED, output_text="x", finish_reason="stop", usage=usage, prompt="<s>hello")
    with database.write() as session:
        finish(session, job.id, job.attempt, outcome)
    assert client.get(f"/v1/jobs/{job_id}/prompt").json == {
        "object": "prompt",
        "job_id": job_id,
        "text": "<s>hello",
        "tokens": {"prompt_tokens": 9, "image_tokens": 4, "video_tokens": 0},
    }
    assert client.get("/v1/jobs/job_none/prompt").status_code == 404


def test_a_job_that_ended_before_its_prompt_was_there_says_so(client: FlaskClient) -> None:
    job_id = client.post("/v1/jobs", json=BODY).json["id"]  # type: ignore[index]
    client.post(f"/v1/jobs/{job_id}/cancel")
    answer = client.get(f"/v1/jobs/{job_id}/prompt")
    assert answer.json is not None
    assert (answer.status_code, answer.json["error"]["code"]) == (409, "conflict")
    assert "before its prompt" in answer.json["error"]["message"]
