from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient

from api.app import create_app
from models.db import Database, utc_now
from models.worker import Worker, WorkerState, heartbeat
from vlmq.config import Settings
from vlmq.served_model import ServedModel


def beat(database: Database, name: str, model: str | None, state: WorkerState, **details: Any) -> None:
    now = utc_now()
    worker = Worker(
        id=name, model=model, state=state, hostname="h", pid=1, started_at=now, heartbeat_at=now, details=details
    )
    with database.write() as session:
        heartbeat(session, worker)


@pytest.mark.parametrize(
    ("states", "told"),
    [
        ([], "unavailable"),
        ([WorkerState.LOADING], "loading"),
        ([WorkerState.READY, WorkerState.FAILED, WorkerState.LOADING], "ready"),
        ([WorkerState.FAILED], "failed"),
        ([WorkerState.DRAINING], "unavailable"),
    ],
)
def test_a_model_is_as_well_as_its_best_worker(
    client: FlaskClient, database: Database, states: list[WorkerState], told: str
) -> None:
    for number, state in enumerate(states):
        beat(database, f"w{number}", "scripted", state, device=state.value)
    listed = client.get("/v1/models").json
    assert listed is not None
    (model,) = listed["data"]
    assert (model["id"], model["object"], model["state"], model["workers"]) == ("scripted", "model", told, len(states))
    assert model["details"] == (None if told == "unavailable" else {"device": told})


def test_a_model_that_loads_shows_how_far_it_is(client: FlaskClient, database: Database) -> None:
    beat(database, "w", "scripted", WorkerState.LOADING, stage="quantizing", progress=0.42)
    answer = client.get("/v1/models/scripted").json
    assert answer is not None
    assert (answer["state"], answer["stage"], answer["progress"]) == ("loading", "quantizing", 0.42)
    assert answer["error"] is None


def test_a_model_that_failed_says_why_after_its_worker_has_gone_and_until_another_is_ready(
    client: FlaskClient, database: Database
) -> None:
    beat(database, "w1", "scripted", WorkerState.FAILED, error="The checkpoint x is gated")
    with database.write() as session:
        session.get_one(Worker, "w1").heartbeat_at = utc_now() - timedelta(hours=1)
    answer = client.get("/v1/models/scripted").json
    assert answer is not None
    assert (answer["state"], answer["error"], answer["workers"]) == ("failed", "The checkpoint x is gated", 0)
    beat(database, "w2", "scripted", WorkerState.LOADING, stage="downloading", progress=None)
    answer = client.get("/v1/models/scripted").json
    assert answer is not None
    assert (answer["state"], answer["error"], answer["workers"]) == ("loading", None, 1)
    beat(database, "w2", "scripted", WorkerState.READY)
    beat(database, "w3", "other", WorkerState.READY)
    with database.read() as session:
        assert session.get(Worker, "w1") is None


def test_how_a_model_is_served_is_shown_without_folders(settings: Settings) -> None:
    served = ServedModel(checkpoint="org/vlm", quantization="quanto-int8", adapter="/srv/adapters/my-lora")
    client = create_app(settings.model_copy(update={"models": {"vlm": served}})).test_client()
    answer = client.get("/v1/models/vlm").json
    assert answer is not None
    assert (answer["quantization"], answer["adapter"]) == ("quanto-int8", "my-lora")


def test_a_name_may_hold_slashes_and_no_folder_of_the_server_is_shown(settings: Settings, database: Database) -> None:
    models = {"org/vlm": ServedModel(checkpoint="/srv/models/vlm-2b")}
    client = create_app(settings.model_copy(update={"models": models})).test_client()
    beat(database, "w", "org/vlm", WorkerState.READY, checkpoint="/srv/models/vlm-2b")
    answer = client.get("/v1/models/org/vlm")
    assert answer.json is not None
    assert (answer.json["id"], answer.json["checkpoint"]) == ("org/vlm", "vlm-2b")
    assert "/srv" not in answer.get_data(as_text=True)


def test_a_model_that_is_not_served_is_not_found(client: FlaskClient) -> None:
    answer = client.get("/v1/models/gpt-7")
    assert answer.json is not None
    assert (answer.status_code, answer.json["error"]["code"]) == (404, "model_not_found")
