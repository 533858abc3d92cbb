import threading
from datetime import timedelta
from typing import Any

import pytest
import redis
from pydantic import SecretStr
from sqlalchemy import select, update

from models.claims import claim_next
from models.db import Database, utc_now
from models.delivery import Delivery, DeliveryStatus
from models.idempotency import IdempotencyKey
from models.job import Job, JobKind, JobStatus
from models.outbox import claim_due
from tasks.deliver_webhook import WebhookSender
from tasks.reconcile import Reconciler
from tests.tasks.receiver import receiving
from tests.tasks.rows import deliveries, get_delivery, get_job, insert_deliveries, insert_job, insert_jobs
from vlmq.config import Settings
from vlmq.doorbell import LIGHT_QUEUE, Doorbell, gpu_queue, make_celery
from vlmq.events import EventLog, connect
from vlmq.signing import new_master_secret

QUEUE = gpu_queue("scripted")
NOBODY_LISTENS = "redis://127.0.0.1:1/0"
LONG_AGO = timedelta(hours=25)


def make_reconciler(settings: Settings, database: Database, name: str = "first") -> Reconciler:
    client = connect(settings.redis_url)
    return Reconciler(settings, database, client, Doorbell(make_celery(settings)), name=name)


@pytest.fixture
def reconciler(settings: Settings, database: Database) -> Reconciler:
    return make_reconciler(settings, database)


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    return connect(redis_url)


def overdue() -> dict[str, Any]:
    return {"start_deadline_at": utc_now() - timedelta(seconds=1)}


def test_a_lost_doorbell_is_rung_once_and_not_at_every_pass(
    reconciler: Reconciler, database: Database, client: redis.Redis
) -> None:
    insert_job(database)
    rings = []
    for _ in range(6):
        reconciler.run_pass()
        rings.append(client.llen(QUEUE))
    assert rings == [0, 1, 1, 1, 1, 1]


def test_a_doorbell_that_is_lost_again_is_rung_again(
    reconciler: Reconciler, database: Database, client: redis.Redis
) -> None:
    insert_job(database)
    for _ in range(3):
        client.delete(QUEUE)
        reconciler.run_pass()
        reconciler.run_pass()
        assert client.llen(QUEUE) == 1


def test_a_doorbell_that_a_worker_has_just_taken_is_not_lost(
    reconciler: Reconciler, settings: Settings, database: Database, client: redis.Redis
) -> None:
    insert_job(database)
    reconciler.run_pass()
    with database.write() as session:
        assert claim_next(session, model="scripted", worker_id="w1", lease_s=30)
    insert_job(database)
    Doorbell(make_celery(settings)).ring_job("scripted", "any")
    reconciler.run_pass()
    assert client.llen(QUEUE) == 1


def test_only_the_rings_that_are_missing_are_rung(
    reconciler: Reconciler, settings: Settings, database: Database, client: redis.Redis
) -> None:
    insert_jobs(database, 5)
    insert_job(database, available_at=utc_now() + timedelta(hours=1))
    insert_job(database, model="other")
    Doorbell(make_celery(settings)).ring_job("scripted", "any")
    reconciler.run_pass()
    reconciler.run_pass()
    assert client.llen(QUEUE) == 5
    assert client.llen(gpu_queue("other")) == 1


def test_a_job_whose_worker_died_is_queued_announced_and_rung_for(
    reconciler: Reconciler, database: Database, client: redis.Redis, event_log: EventLog
) -> None:
    job_id = insert_job(database)
    with database.write() as session:
        assert claim_next(session, model="scripted", worker_id="w1", lease_s=-1)
    reconciler.run_pass()
    assert get_job(database, job_id).status == JobStatus.QUEUED
    assert event_log.read(job_id)[-1].data["status"] == "queued"
    assert client.llen(QUEUE) == 1


def test_an_expired_job_gets_its_webhook_and_the_last_event_of_its_stream(
    reconciler: Reconciler, settings: Settings, database: Database, client: redis.Redis, event_log: EventLog
) -> None:
    webhooks = settings.webhooks.model_copy(update={"secret": SecretStr(new_master_secret())})
    with receiving() as receiver:
        job_id = insert_job(database, webhook_url=receiver.url, **overdue())
        reconciler.run_pass()
        assert client.llen(LIGHT_QUEUE) == 1
        WebhookSender(settings.model_copy(update={"webhooks": webhooks}), database).deliver_due()
    assert get_job(database, job_id).status == JobStatus.EXPIRED
    (event,) = event_log.read(job_id)
    assert event.is_final
    assert event.data["error"]["code"] == "start_deadline_exceeded"
    assert b'"job.expired"' in receiver.requests[0].body


def test_more_jobs_than_one_batch_expire_in_one_pass(
    reconciler: Reconciler, database: Database, client: redis.Redis
) -> None:
    ids = insert_jobs(database, 101, **overdue())
    reconciler.run_pass()
    with database.read() as session:
        assert set(session.scalars(select(Job.status).where(Job.id.in_(ids)))) == {JobStatus.EXPIRED}


def test_what_a_dead_sender_held_becomes_due_and_is_rung_for(
    reconciler: Reconciler, database: Database, client: redis.Redis
) -> None:
    (delivery_id,) = insert_deliveries(database, "https://example.com/hook")
    with database.write() as session:
        assert claim_due(session, lease_s=-1, max_in_flight_per_host=4)
    for _ in range(4):
        reconciler.run_pass()
    assert get_delivery(database, delivery_id).status == DeliveryStatus.PENDING
    assert client.llen(LIGHT_QUEUE) == 1


def test_a_receiver_that_is_busy_is_not_rung_for(
    reconciler: Reconciler, settings: Settings, database: Database, client: redis.Redis
) -> None:
    limit = settings.webhooks.max_in_flight_per_host
    insert_deliveries(database, "https://example.com/hook", limit + 3)
    for _ in range(limit):
        with database.write() as session:
            assert claim_due(session, lease_s=30, max_in_flight_per_host=limit)
    for _ in range(3):
        reconciler.run_pass()
    assert client.llen(LIGHT_QUEUE) == 0


def test_idempotency_keys_are_forgotten_after_a_day(reconciler: Reconciler, database: Database) -> None:
    with database.write() as session:
        for key, age in (("old", LONG_AGO), ("young", timedelta(hours=23))):
            values = {"body_sha256": "0" * 64, "resource_id": "job_1", "created_at": utc_now() - age}
            session.add(IdempotencyKey(tenant="acme", key=key, **values))
    reconciler.run_pass()
    with database.read() as session:
        assert list(session.scalars(select(IdempotencyKey.key))) == ["young"]


def test_one_reconciler_leads_until_it_resigns(settings: Settings, database: Database) -> None:
    first, second = (make_reconciler(settings, database, name) for name in ("first", "second"))
    first.run_pass()
    job_id = insert_job(database, **overdue())
    second.run_pass()
    assert get_job(database, job_id).status == JobStatus.QUEUED
    first.resign()
    second.run_pass()
    assert get_job(database, job_id).status == JobStatus.EXPIRED


def test_without_redis_the_database_is_still_put_right(settings: Settings, database: Database) -> None:
    alone = make_reconciler(settings.model_copy(update={"redis_url": NOBODY_LISTENS}), database)
    job_id = insert_job(database, **overdue())
    alone.run_pass()
    assert get_job(database, job_id).status == JobStatus.EXPIRED


def test_two_reconcilers_at_once_do_everything_once(settings: Settings, database: Database) -> None:
    # Without Redis nobody leads, so both work.
    apart = settings.model_copy(update={"redis_url": NOBODY_LISTENS})
    ids = set(insert_jobs(database, 30, webhook_url="https://example.com/hook", **overdue()))
    abandoned = insert_job(database)
    with database.write() as session:
        assert claim_next(session, model="scripted", worker_id="w1", lease_s=-1)
    together = threading.Barrier(2)

    def work(name: str) -> None:
        reconciler = make_reconciler(apart, database, name)
        together.wait()
        for _ in range(3):
            reconciler.run_pass()

    threads = [threading.Thread(target=work, args=(name,)) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    expired = [delivery.job_id for delivery in deliveries(database)]
    assert len(expired) == 30
    assert set(expired) == ids
    job = get_job(database, abandoned)
    assert (job.status, job.attempt) == (JobStatus.QUEUED, 1)


def test_a_database_that_is_away_is_left_to_the_next_pass(
    settings: Settings, database: Database, client: redis.Redis
) -> None:
    away = Database("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    make_reconciler(settings, away).run_pass()
    job_id = insert_job(database, **overdue())
    make_reconciler(settings, database).run_pass()
    assert get_job(database, job_id).status == JobStatus.EXPIRED


def test_deliveries_not_yet_due_are_not_rung_for(
    reconciler: Reconciler, database: Database, client: redis.Redis
) -> None:
    insert_deliveries(database, "https://example.com/hook", 2)
    with database.write() as session:
        session.execute(update(Delivery).values(due_at=utc_now() + timedelta(minutes=5)))
    reconciler.run_pass()
    reconciler.run_pass()
    assert client.llen(LIGHT_QUEUE) == 0


def test_prompts_that_nobody_waits_for_any_more_are_deleted(reconciler: Reconciler, database: Database) -> None:
    forgotten = insert_job(database, kind=JobKind.RENDER, status=JobStatus.COMPLETED, created_at=utc_now() - LONG_AGO)
    fresh = insert_job(database, kind=JobKind.RENDER)
    old_job = insert_job(database, status=JobStatus.COMPLETED, created_at=utc_now() - LONG_AGO)
    reconciler.run_pass()
    with database.read() as session:
        left = set(session.scalars(select(Job.id)))
    assert forgotten not in left
    assert left == {fresh, old_job}
