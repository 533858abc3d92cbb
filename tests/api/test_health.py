import os
import signal
import time
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient

from api.app import create_app
from api.services import Services
from models.db import Database
from models.worker import WorkerState
from tests.api.bodies import BODY
from tests.api.stand_in import StandIn
from tests.api.test_models import beat
from vlmq.config import Settings


def checks(client: FlaskClient) -> tuple[int, dict[str, bool]]:
    answer = client.get("/readyz")
    found: Any = answer.json
    return answer.status_code, {name: check["ok"] for name, check in found["checks"].items()}


def test_a_service_is_ready_with_database_redis_and_workers(client: FlaskClient, database: Database) -> None:
    assert checks(client) == (
        503,
        {"database": True, "redis": True, "model scripted": False, "light worker": False},
    )
    beat(database, "w1", "scripted", WorkerState.LOADING)
    beat(database, "w2", None, WorkerState.READY)
    assert checks(client) == (503, {"database": True, "redis": True, "model scripted": False, "light worker": True})
    beat(database, "w1", "scripted", WorkerState.READY)
    assert checks(client) == (200, {"database": True, "redis": True, "model scripted": True, "light worker": True})


def test_what_is_away_is_named(settings: Settings, tmp_path: Path) -> None:
    away = {"redis_url": "redis://127.0.0.1:1/0", "database_url": "postgresql://nobody@127.0.0.1:1/none"}
    client = create_app(settings.model_copy(update=away)).test_client()
    assert checks(client) == (503, dict.fromkeys(("database", "redis", "model scripted", "light worker"), False))
    assert client.get("/healthz").json == {"status": "ok"}


def test_a_database_without_the_current_schema_is_not_ready(settings: Settings, tmp_path: Path) -> None:
    empty = settings.model_copy(update={"database_url": f"sqlite:///{tmp_path / 'empty.db'}"})
    answer = create_app(empty).test_client().get("/readyz")
    assert answer.json is not None
    assert "vlmq db upgrade" in answer.json["checks"]["database"]["detail"]


def test_metrics_count_requests_jobs_and_workers(client: FlaskClient, database: Database) -> None:
    body = {"model": "scripted", "messages": [{"role": "user", "content": "hello"}]}
    client.post("/v1/jobs", json=body)
    client.get("/v1/jobs/job_0")
    beat(database, "w1", "scripted", WorkerState.READY)
    text = client.get("/metrics").get_data(as_text=True)
    for line in (
        'vlmq_jobs{model="scripted",status="queued"} 1.0',
        'vlmq_queue_depth{model="scripted"} 1.0',
        'vlmq_workers{model="scripted",state="ready"} 1.0',
        "vlmq_database_up 1.0",
        "vlmq_deliveries_due 0.0",
    ):
        assert line in text.splitlines()
    assert 'vlmq_http_requests_total{method="GET",route="/v1/jobs/<job_id>",status="404"}' in text
    assert 'vlmq_http_request_seconds_count{method="POST",route="/v1/jobs"}' in text


def test_metrics_are_told_without_a_database(settings: Settings) -> None:
    away = settings.model_copy(update={"database_url": "postgresql://nobody@127.0.0.1:1/none"})
    answer = create_app(away).test_client().get("/metrics")
    assert answer.status_code == 200
    assert "vlmq_database_up 0.0" in answer.get_data(as_text=True)


def test_nobody_waits_for_a_redis_that_hangs(client: FlaskClient, service: Services, worker: StandIn) -> None:
    made = client.post("/v1/jobs", json=BODY).json
    assert made is not None
    worker.say(worker.claim(made["id"]), "hello")
    pid = service.redis.info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        accepted = client.post("/v1/jobs", json=BODY)
        running = client.get(f"/v1/jobs/{made['id']}")
        cancelled = client.post(f"/v1/jobs/{made['id']}/cancel")
        redis_ok = checks(client)[1]["redis"]
        took_s = time.monotonic() - began
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (accepted.status_code, running.status_code, cancelled.status_code, redis_ok) == (202, 200, 200, False)
    assert running.json is not None
    assert running.json["output_text"] is None
    # The promise is 6 s for one request.
    assert took_s < 6
