"""A tenant whose queue is full, on both databases."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr
from sqlalchemy import func, select
from werkzeug.test import TestResponse

from api.app import create_app
from api.services import EXTENSION, Services
from models.db import Database
from models.job import Job
from tests.api.stand_in import StandIn
from tests.api.test_both_databases import BODY, image_body
from tests.tasks.rows import insert_jobs
from vlmq.config import Settings
from vlmq.limits import Limits

MAX_QUEUED = 3


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue({"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]))


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"limits": Limits(max_queued=MAX_QUEUED)})


@contextmanager
def application(settings: Settings, key: str | None = None) -> Iterator[FlaskClient]:
    app = create_app(settings)
    client = app.test_client()
    if key is not None:
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {key}"
    yield client
    service: Services = app.extensions[EXTENSION]
    service.close()
    service.database.dispose()


def submit(client: FlaskClient, **headers: str) -> TestResponse:
    return client.post("/v1/jobs", json=BODY, headers=headers)


def jobs(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(Job)) or 0


def test_one_job_more_than_may_wait_is_refused_until_one_has_started(
    client: FlaskClient, worker: StandIn, database: Database
) -> None:
    made = [submit(client) for _ in range(MAX_QUEUED)]
    assert [answer.status_code for answer in made] == [202] * MAX_QUEUED
    refused = submit(client)
    assert (refused.status_code, refused.content_type) == (429, "application/problem+json")
    assert int(refused.headers["Retry-After"]) > 0
    assert refused.json is not None
    assert refused.json["error"]["code"] == "queue_full"
    assert str(MAX_QUEUED) in refused.json["detail"]
    assert submit(client, Accept="text/event-stream").content_type == "application/problem+json"
    assert jobs(database) == MAX_QUEUED
    first = made[0].json
    assert first is not None
    worker.claim(first["id"])
    assert [submit(client).status_code for _ in range(2)] == [202, 429]


def test_a_full_queue_still_answers_repeated_requests(client: FlaskClient) -> None:
    key = {"Idempotency-Key": "order-17"}
    first = submit(client, **key).json
    assert first is not None
    assert [submit(client).status_code for _ in range(MAX_QUEUED)] == [202] * (MAX_QUEUED - 1) + [429]
    again = submit(client, **key)
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (202, "true")
    assert again.json is not None
    assert again.json["id"] == first["id"]


def test_what_is_refused_leaves_no_bytes(client: FlaskClient, service: Services) -> None:
    for _ in range(MAX_QUEUED):
        submit(client)
    assert client.post("/v1/jobs", json=image_body(7)).status_code == 429
    assert [path for path in service.settings.files_dir.rglob("*") if path.is_file()] == []


def test_another_tenants_jobs_do_not_count(settings: Settings, database: Database) -> None:
    insert_jobs(database, MAX_QUEUED, tenant="a")
    keyed = settings.model_copy(update={"api_keys": {"a": SecretStr("key-a"), "b": SecretStr("key-b")}})
    with application(keyed, "key-a") as a, application(keyed, "key-b") as b:
        assert (submit(a).status_code, submit(b).status_code) == (429, 202)


def test_without_a_limit_any_number_may_wait(settings: Settings, database: Database) -> None:
    insert_jobs(database, MAX_QUEUED, tenant="default")
    with application(settings.model_copy(update={"limits": Limits(max_queued=None)})) as client:
        assert submit(client).status_code == 202


def test_submissions_at_the_same_moment_may_exceed_it_by_themselves_at_most(
    client: FlaskClient, database: Database
) -> None:
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: submit(client.application.test_client()).status_code, range(24)))
    assert set(statuses) == {202, 429}
    assert statuses.count(202) == jobs(database)
    one_writer = database.engine.dialect.name == "sqlite"
    assert MAX_QUEUED <= jobs(database) <= (MAX_QUEUED if one_writer else MAX_QUEUED + 7)
