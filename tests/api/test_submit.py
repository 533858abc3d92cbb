from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from api.app import create_app
from api.services import Services
from models.file import File
from models.job import JobFile, JobStatus
from tests.api.bodies import BODY, PNG, VIDEO, errors, with_parts
from tests.api.stand_in import MP4, png
from tests.tasks.rows import eventually, get_job
from vlmq.config import Settings
from vlmq.doorbell import gpu_queue


def test_a_job_is_stored_before_the_answer_and_its_doorbell_rings(client: FlaskClient, service: Services) -> None:
    answer = client.post("/v1/jobs", json=BODY | {"priority": 7, "metadata": {"ticket": "A-17"}})
    assert answer.status_code == 202
    view = answer.json
    assert view is not None
    assert answer.headers["Location"] == f"/v1/jobs/{view['id']}"
    assert (view["status"], view["priority"], view["metadata"]) == ("queued", 7, {"ticket": "A-17"})
    job = get_job(service.database, view["id"])
    assert (job.status, job.tenant, job.run_s) == (JobStatus.QUEUED, "default", service.settings.limits.run_s)
    eventually(lambda: service.redis.llen(gpu_queue("scripted")) == 1)


def test_a_job_is_accepted_while_the_broker_is_away(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}))
    answer = app.test_client().post("/v1/jobs", json=BODY)
    assert answer.status_code == 202


def test_deadlines_are_counted_from_the_submission(client: FlaskClient, service: Services) -> None:
    answer = client.post("/v1/jobs", json=BODY | {"deadlines": {"start_s": 60, "run_s": 5}})
    assert answer.json is not None
    job = get_job(service.database, answer.json["id"])
    assert job.run_s == 5
    assert (job.start_deadline_at - job.created_at).total_seconds() == 60


@pytest.mark.parametrize(
    ("part", "stored"),
    [
        ({"type": "text", "text": "hi"}, {"type": "text", "text": "hi"}),
        ({"type": "input_text", "text": "hi"}, {"type": "text", "text": "hi"}),
        ({"type": "image", "url": "http://e.com/a.png"}, {"type": "image", "url": "http://e.com/a.png"}),
        ({"type": "image", "image": "http://e.com/a.png"}, {"type": "image", "url": "http://e.com/a.png"}),
        (
            {"type": "image_url", "image_url": {"url": "http://e.com/a.png", "detail": "auto"}},
            {"type": "image", "url": "http://e.com/a.png"},
        ),
        ({"type": "input_image", "image_url": "http://e.com/a.png"}, {"type": "image", "url": "http://e.com/a.png"}),
        (VIDEO | {"num_frames": 32}, VIDEO | {"num_frames": 32}),
        (VIDEO | {"fps": 0.5}, VIDEO | {"fps": 0.5}),
        ({"type": "video", "video": "http://e.com/a.mp4"}, {"type": "video", "url": "http://e.com/a.mp4"}),
        (
            {"type": "video_url", "video_url": {"url": "http://e.com/a.mp4"}},
            {"type": "video", "url": "http://e.com/a.mp4"},
        ),
    ],
)
def test_every_form_of_a_part_is_stored_in_transformers_form(
    client: FlaskClient, part: dict[str, Any], stored: dict[str, Any]
) -> None:
    answer = client.post("/v1/jobs", json=with_parts(part))
    assert answer.json is not None
    assert answer.json["request"]["messages"] == [{"role": "user", "content": [stored]}]


def test_fields_that_ask_for_nothing_change_nothing(client: FlaskClient) -> None:
    nothing: dict[str, Any] = {"chat_template": None, "template_kwargs": {}, "return_full_text": False}
    answer = client.post("/v1/jobs", json=BODY | nothing)
    assert answer.json is not None
    assert answer.json["request"] == {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
        "generation": {},
    }


def test_generation_is_stored_as_named_and_stop_as_a_list(client: FlaskClient) -> None:
    generation = {"max_new_tokens": 5, "temperature": 0, "stop": "\n\n", "seed": 2**63 - 1, "do_sample": None}
    answer = client.post("/v1/jobs", json=BODY | {"generation": generation})
    assert answer.json is not None
    assert answer.json["request"]["generation"] == {
        "max_new_tokens": 5,
        "temperature": 0,
        "stop": ["\n\n"],
        "seed": 2**63 - 1,
    }


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "base64": PNG},
        {"type": "image", "base64": "\r\n".join(PNG[at : at + 60] for at in range(0, len(PNG), 60))},
        {"type": "image", "base64": f"data:image/png;base64,{PNG}"},
        {"type": "image", "url": f"data:;base64,{PNG}"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;charset=utf-8;base64,{PNG}"}},
        {"type": "input_image", "image_url": f"DATA:image/png;base64,{PNG}"},
    ],
)
def test_an_image_inside_the_request_becomes_a_file(
    client: FlaskClient, service: Services, part: dict[str, Any]
) -> None:
    answer = client.post("/v1/jobs", json=with_parts(part))
    assert answer.json is not None
    (stored,) = answer.json["request"]["messages"][0]["content"]
    with service.database.read() as session:
        file = session.get_one(File, stored["file_id"])
        assert session.get(JobFile, (answer.json["id"], file.id)) is not None
    assert stored == {"type": "image", "file_id": file.id}
    assert (file.inline, file.media_type) == (True, "image/png")
    assert service.files.path(file.sha256).read_bytes() == png()


def test_the_same_image_is_kept_once(client: FlaskClient, service: Services) -> None:
    part = {"type": "image", "base64": PNG}
    for _ in range(2):
        assert client.post("/v1/jobs", json=with_parts(part, part)).status_code == 202
    with service.database.read() as session:
        assert len(session.scalars(select(File)).all()) == 1
        assert len(session.scalars(select(JobFile)).all()) == 2


def test_an_uploaded_file_may_be_used(client: FlaskClient) -> None:
    uploaded = client.post("/v1/files", data=MP4, content_type="video/mp4").json
    assert uploaded is not None
    answer = client.post("/v1/jobs", json=with_parts({"type": "video", "file_id": uploaded["id"], "num_frames": 4}))
    assert answer.status_code == 202
    refused = errors(client, with_parts({"type": "image", "file_id": uploaded["id"]}))
    assert refused == (422, [("unsupported_media_type", "messages.0.content.0.file_id")])
    unknown = errors(client, with_parts({"type": "image", "file_id": "file_0"}))
    assert unknown == (422, [("file_not_found", "messages.0.content.0.file_id")])


def test_a_webhook_hears_of_every_end_unless_it_says_otherwise(client: FlaskClient, service: Services) -> None:
    answer = client.post("/v1/jobs", json=BODY | {"webhook": {"url": "https://example.com/hook"}})
    assert answer.json is not None
    job = get_job(service.database, answer.json["id"])
    assert job.webhook == {
        "url": "https://example.com/hook",
        "events": ["job.completed", "job.failed", "job.cancelled", "job.expired"],
    }
