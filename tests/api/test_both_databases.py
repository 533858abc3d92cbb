"""What may differ between the databases: conflicts, locks, and what one of them deletes for another."""

import base64
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from hashlib import sha256
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr
from sqlalchemy import delete, func, select

from api.app import create_app
from api.services import Services
from models.file import File
from models.file_rows import lock_contents
from models.idempotency import IdempotencyKey
from models.job import Job, JobFile
from models.template import Template
from tests.api.stand_in import StandIn, png
from vlmq.config import Settings

BODY: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue({"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]))


def image_body(shade: int) -> dict[str, Any]:
    part = {"type": "image", "base64": base64.b64encode(png(shade=shade)).decode()}
    return {"model": "scripted", "messages": [{"role": "user", "content": [part]}]}


def submit(client: FlaskClient, body: dict[str, Any] = BODY) -> str:
    answer = client.post("/v1/jobs", json=body)
    assert answer.json is not None
    return str(answer.json["id"])


def count(service: Services, table: Any) -> int:
    with service.database.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_the_same_key_and_body_answer_with_the_same_job(client: FlaskClient, service: Services) -> None:
    headers = {"Idempotency-Key": "order-17"}
    first, second = (client.post("/v1/jobs", json=BODY, headers=headers) for _ in range(2))
    assert first.json is not None
    assert second.json is not None
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json["id"] == second.json["id"]
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    assert second.headers["Location"] == first.headers["Location"]
    assert count(service, Job) == 1


def test_the_same_key_with_another_body_is_refused(client: FlaskClient, service: Services) -> None:
    headers = {"Idempotency-Key": "order-17"}
    client.post("/v1/jobs", json=BODY, headers=headers)
    answer = client.post("/v1/jobs", json=BODY | {"priority": 1}, headers=headers)
    assert answer.json is not None
    assert (answer.status_code, answer.json["error"]["code"]) == (422, "idempotency_mismatch")
    assert count(service, Job) == 1


def test_a_refused_request_does_not_use_up_its_key(client: FlaskClient, service: Services) -> None:
    headers = {"Idempotency-Key": "order-17"}
    assert client.post("/v1/jobs", json=BODY | {"model": "none"}, headers=headers).status_code == 422
    assert client.post("/v1/jobs", json=BODY, headers=headers).status_code == 202


def test_a_key_whose_job_was_deleted_is_not_used_again(client: FlaskClient, worker: StandIn) -> None:
    headers = {"Idempotency-Key": "order-17"}
    first = client.post("/v1/jobs", json=BODY, headers=headers)
    assert first.json is not None
    worker.run(first.json["id"], "hi")
    client.delete(f"/v1/jobs/{first.json['id']}")
    assert client.post("/v1/jobs", json=BODY, headers=headers).status_code == 409


def test_fifty_requests_at_once_with_one_key_make_one_job(app: Flask, service: Services) -> None:
    together = threading.Barrier(50)

    def post(_: int) -> tuple[int, str]:
        together.wait(30)
        answer = app.test_client().post("/v1/jobs", json=image_body(1), headers={"Idempotency-Key": "order-17"})
        assert answer.json is not None
        return answer.status_code, answer.json.get("id", answer.json)

    with ThreadPoolExecutor(50) as pool:
        answers = set(pool.map(post, range(50)))
    assert len(answers) == 1
    assert answers.pop()[0] == 202
    assert (count(service, Job), count(service, IdempotencyKey), count(service, File)) == (1, 1, 1)


def test_requests_at_once_with_the_same_image_share_one_file(app: Flask, service: Services) -> None:
    with ThreadPoolExecutor(10) as pool:
        ids = set(pool.map(lambda _: submit(app.test_client(), image_body(2)), range(20)))
    assert len(ids) == 20
    assert (count(service, File), count(service, JobFile)) == (1, 20)


def test_deleting_a_job_deletes_the_images_that_only_it_used(
    client: FlaskClient, service: Services, worker: StandIn
) -> None:
    body = image_body(3)
    body["messages"][0]["content"] += image_body(4)["messages"][0]["content"]
    first, second = submit(client, body), submit(client, image_body(4))
    uploaded = client.post("/v1/files", data=png(shade=5), content_type="image/png").json
    assert uploaded is not None
    uses = {
        "model": "scripted",
        "messages": [{"role": "user", "content": [{"type": "image", "file_id": uploaded["id"]}]}],
    }
    third = submit(client, uses)
    for job_id in (first, second, third):
        worker.run(job_id, "hi")
    paths = {}
    with service.database.read() as session:
        for file in session.scalars(select(File)):
            paths[file.sha256] = service.files.path(file.sha256)

    def shades() -> set[bytes]:
        return {path.read_bytes() for path in paths.values() if path.exists()}

    assert client.delete(f"/v1/jobs/{first}").status_code == 200
    assert shades() == {png(shade=4), png(shade=5)}
    client.delete(f"/v1/jobs/{second}")
    client.delete(f"/v1/jobs/{third}")
    assert shades() == {png(shade=5)}
    assert (count(service, Job), count(service, JobFile), count(service, File)) == (0, 0, 1)


def test_jobs_that_come_and_go_at_once_never_lose_their_image(app: Flask, service: Services, worker: StandIn) -> None:
    def come_and_go(turn: int) -> None:
        client = app.test_client()
        answer = client.post("/v1/jobs", json=image_body(6))
        # Rarely the bytes go between being kept and being noted; then the client is told to try again.
        if answer.status_code == 503:
            return
        assert answer.json is not None
        job_id = answer.json["id"]
        (part,) = answer.json["request"]["messages"][0]["content"]
        content = client.get(f"/v1/files/{part['file_id']}/content")
        assert (content.status_code, content.data) == (200, png(shade=6))
        client.post(f"/v1/jobs/{job_id}/cancel")
        if turn % 3:
            assert client.delete(f"/v1/jobs/{job_id}").status_code == 200

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(come_and_go, range(30)))
    for turn in range(30):
        come_and_go(turn)


def upload(client: FlaskClient, shade: int = 7) -> str:
    answer = client.post("/v1/files", data=png(shade=shade), content_type="image/png")
    assert answer.json is not None
    return str(answer.json["id"])


@pytest.mark.parametrize(
    ("method", "path", "table"),
    [
        ("DELETE", "/v1/files/{file}", File),
        ("DELETE", "/v1/jobs/{job}", Job),
        ("POST", "/v1/jobs/{job}/cancel", Job),
    ],
)
def test_what_another_deletes_at_the_same_moment_is_not_found(
    app: Flask, service: Services, method: str, path: str, table: Any
) -> None:
    client = app.test_client()
    url = path.format(file=upload(client), job=submit(client))
    with ThreadPoolExecutor(1) as pool:
        with service.database.write() as session:
            session.execute(delete(table))
            asked = pool.submit(lambda: app.test_client().open(url, method=method))
            # Long enough to have seen the row; a lock is what it waits for.
            assert not wait([asked], timeout=0.5).done
        assert asked.result(timeout=20).status_code == 404


def test_deleting_a_file_waits_for_a_job_that_takes_it_without_a_deadlock(app: Flask, service: Services) -> None:
    file_id = upload(app.test_client())
    with ThreadPoolExecutor(1) as pool:
        with service.database.write() as session:
            lock_contents(session, [sha256(png(shade=7)).hexdigest()])
            asked = pool.submit(lambda: app.test_client().delete(f"/v1/files/{file_id}"))
            assert not wait([asked], timeout=0.5).done
            # As a job does that refers to it.
            session.execute(select(File.id).where(File.id == file_id).with_for_update(read=True))
        assert asked.result(timeout=20).status_code == 200


def test_the_same_bytes_of_two_tenants_are_kept_until_both_are_gone(settings: Settings, service: Services) -> None:
    keys = {"acme": SecretStr("key-a"), "umbrella": SecretStr("key-u")}
    client = create_app(settings.model_copy(update={"api_keys": keys})).test_client()
    ids = {}
    for key in ("key-a", "key-u"):
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "image/png"}
        answer = client.post("/v1/files", data=png(shade=7), headers=headers)
        assert answer.json is not None
        assert answer.status_code == 201
        ids[key] = answer.json["id"]
        path = service.files.path(answer.json["sha256"])
    assert client.delete(f"/v1/files/{ids['key-a']}", headers={"Authorization": "Bearer key-a"}).status_code == 200
    assert path.exists()
    assert client.delete(f"/v1/files/{ids['key-u']}", headers={"Authorization": "Bearer key-u"}).status_code == 200
    assert not path.exists()


def test_lists_filter_and_page(client: FlaskClient, worker: StandIn) -> None:
    ids = [submit(client) for _ in range(5)]
    worker.run(ids[0], "hi")
    page = client.get("/v1/jobs?limit=2").json
    assert page is not None
    assert [job["id"] for job in page["data"]] == [ids[4], ids[3]]
    assert (page["object"], page["has_more"], page["first_id"], page["last_id"]) == ("list", True, ids[4], ids[3])
    assert "request" not in page["data"][0]
    rest = client.get(f"/v1/jobs?limit=3&after={page['last_id']}").json
    assert rest is not None
    assert [job["id"] for job in rest["data"]] == [ids[2], ids[1], ids[0]]
    assert rest["has_more"] is False
    done = client.get("/v1/jobs?status=completed&status=failed").json
    assert done is not None
    assert [job["id"] for job in done["data"]] == [ids[0]]
    created = done["data"][0]["created_at"]
    later = client.get("/v1/jobs", query_string={"created_after": created, "status": "completed"}).json
    earlier = client.get("/v1/jobs", query_string={"created_before": "2020-01-01T00:00:00+02:00"}).json
    other = client.get("/v1/jobs?model=other").json
    assert later is not None
    assert earlier is not None
    assert other is not None
    assert [len(found["data"]) for found in (later, earlier, other)] == [1, 0, 0]
    assert other["first_id"] is None


def test_templates_stored_at_the_same_moment_get_a_version_each(app: Flask, service: Services) -> None:
    start = threading.Barrier(8)
    body = {"name": "t", "kind": "chat", "chat_template": "x"}

    def create(number: int) -> int:
        start.wait(20)
        key = {"Idempotency-Key": "same"} if number < 2 else {}
        answer = app.test_client().post("/v1/templates", json=body, headers=key)
        assert answer.json is not None
        assert answer.status_code == 201, answer.json
        return int(answer.json["version"])

    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(create, range(8)))
    assert versions[0] == versions[1]
    assert sorted(set(versions)) == [1, 2, 3, 4, 5, 6, 7]
    assert count(service, Template) == 7


def test_a_deleted_template_is_gone_on_either_database(client: FlaskClient, service: Services) -> None:
    client.post("/v1/templates", json={"name": "t", "kind": "chat", "chat_template": "x"})
    assert client.get("/v1/templates/t%00").status_code == 404
    assert client.delete("/v1/templates/t").status_code == 200
    assert count(service, Template) == 0
