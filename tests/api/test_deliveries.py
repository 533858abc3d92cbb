from typing import Any

from flask.testing import FlaskClient
from pydantic import SecretStr

from api.app import create_app
from api.services import Services
from models.db import Database, utc_now
from models.outbox import Answer, claim_due, record_answer
from tests.api.stand_in import StandIn
from tests.tasks.rows import eventually
from vlmq.config import Settings, Webhooks
from vlmq.signing import tenant_secrets

BODY: dict[str, Any] = {
    "model": "scripted",
    "messages": [{"role": "user", "content": "hello"}],
    "webhook": {"url": "https://example.com/hook"},
}


def delivered(client: FlaskClient, worker: StandIn) -> tuple[str, str]:
    made = client.post("/v1/jobs", json=BODY).json
    assert made is not None
    worker.run(made["id"], "done")
    listed = client.get(f"/v1/deliveries?job_id={made['id']}").json
    assert listed is not None
    (delivery,) = listed["data"]
    return made["id"], delivery["id"]


def try_once(database: Database, answer: Answer) -> None:
    with database.write() as session:
        delivery = claim_due(session, lease_s=30, max_in_flight_per_host=4)
        assert delivery is not None
        record_answer(session, delivery, answer, retry_after_s=(60,))


def test_a_delivery_shows_its_payload_and_every_try(client: FlaskClient, worker: StandIn, database: Database) -> None:
    job_id, delivery_id = delivered(client, worker)
    try_once(database, Answer(utc_now(), 0.25, status_code=500, response_excerpt="oops"))
    answer = client.get(f"/v1/deliveries/{delivery_id}").json
    assert answer is not None
    assert (answer["status"], answer["tries"], answer["event"], answer["job_id"]) == (
        "pending",
        1,
        "job.completed",
        job_id,
    )
    assert answer["payload"]["data"]["output_text"] == "done"
    (attempt,) = answer["attempts"]
    assert (attempt["number"], attempt["status_code"], attempt["response_excerpt"]) == (1, 500, "oops")


def test_deliveries_filter_by_status(client: FlaskClient, worker: StandIn, database: Database) -> None:
    _, first = delivered(client, worker)
    try_once(database, Answer(utc_now(), 0.1, status_code=200))
    _, second = delivered(client, worker)
    for status, expected in (("delivered", [first]), ("pending", [second]), ("dead", [])):
        listed = client.get(f"/v1/deliveries?status={status}").json
        assert listed is not None
        assert [delivery["id"] for delivery in listed["data"]] == expected
    listed = client.get("/v1/deliveries?limit=1").json
    assert listed is not None
    assert (listed["data"][0]["id"], listed["has_more"]) == (second, True)
    assert "payload" not in listed["data"][0]


def test_a_delivery_is_sent_again_under_its_id(
    client: FlaskClient, worker: StandIn, database: Database, service: Services
) -> None:
    _, delivery_id = delivered(client, worker)
    try_once(database, Answer(utc_now(), 0.1, status_code=410))
    answer = client.post(f"/v1/deliveries/{delivery_id}/redeliver")
    assert answer.json is not None
    assert (answer.status_code, answer.json["id"], answer.json["status"]) == (202, delivery_id, "pending")
    eventually(lambda: service.redis.llen("vlmq.light") == 1)


def test_a_delivery_that_is_being_sent_is_left_alone(client: FlaskClient, worker: StandIn, database: Database) -> None:
    _, delivery_id = delivered(client, worker)
    with database.write() as session:
        claim_due(session, lease_s=30, max_in_flight_per_host=4)
    assert client.post(f"/v1/deliveries/{delivery_id}/redeliver").status_code == 409


def test_another_tenant_sees_no_delivery_and_has_another_secret(
    settings: Settings, client: FlaskClient, worker: StandIn
) -> None:
    _, delivery_id = delivered(client, worker)
    keys = {"umbrella": SecretStr("key-u")}
    other = create_app(settings.model_copy(update={"api_keys": keys})).test_client()
    headers = {"Authorization": "Bearer key-u"}
    assert other.get(f"/v1/deliveries/{delivery_id}", headers=headers).status_code == 404
    assert other.post(f"/v1/deliveries/{delivery_id}/redeliver", headers=headers).status_code == 404
    mine, theirs = client.get("/v1/webhook_secret").json, other.get("/v1/webhook_secret", headers=headers).json
    assert mine == {"secret": tenant_secrets(settings, "default")[0]}
    assert theirs == {"secret": tenant_secrets(settings, "umbrella")[0]}
    assert mine != theirs


def test_without_a_signing_secret_there_is_none_to_get(settings: Settings) -> None:
    client = create_app(settings.model_copy(update={"webhooks": Webhooks()})).test_client()
    assert client.get("/v1/webhook_secret").status_code == 409
