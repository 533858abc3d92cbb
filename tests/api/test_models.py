from typing import Any

import pytest
from flask.testing import FlaskClient

from api.app import create_app
from models.db import Database, utc_now
from models.worker import Worker, WorkerState, heartbeat
from vlmq.config import ServedModel, Settings


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
        ([WorkerState.FAILED, WorkerState.LOADING, WorkerState.READY], "ready"),
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
