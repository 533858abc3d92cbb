"""Receivers that hang or misbehave, and senders that die: what must hold all the same."""

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import update

from models.db import Database, utc_now
from models.delivery import Delivery, DeliveryStatus
from models.outbox import take_back_expired_sends
from tasks.deliver_webhook import WebhookSender
from tests.tasks.receiver import MASTER, Receiver, Request, adjusted, receiving
from tests.tasks.rows import attempts, deliveries, eventually, get_delivery, insert_deliveries
from vlmq.config import Settings, Timing


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return adjusted(settings)


@pytest.fixture
def sender(settings: Settings, database: Database) -> WebhookSender:
    return WebhookSender(settings, database)


def deliver_in_threads(sender: WebhookSender, count: int) -> list[threading.Thread]:
    threads = [threading.Thread(target=sender.deliver_due, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_a_hanging_receiver_delays_no_other(settings: Settings, database: Database) -> None:
    settings = adjusted(settings, timeout_s=30.0, max_in_flight_per_host=2)
    sender = WebhookSender(settings, database)
    with receiving(lambda _: None) as hanging, receiving() as quick:
        hanging.answer = hanging.hang
        stuck = insert_deliveries(database, hanging.url, 10)
        insert_deliveries(database, quick.url, 10)
        begun = time.monotonic()
        threads = deliver_in_threads(sender, 6)
        eventually(lambda: len(quick.requests) == 10, within_s=10)
        assert time.monotonic() - begun < 5
        assert (len(hanging.requests), hanging.most_at_once) == (2, 2)
        sender.stopping.set()
        hanging.closing.set()
        for thread in threads:
            thread.join(10)
    assert get_delivery(database, stuck[-1]).status == DeliveryStatus.PENDING


def test_a_sender_that_was_taken_for_dead_records_nothing(sender: WebhookSender, database: Database) -> None:
    successor = WebhookSender(sender.settings, database)

    def lose_the_lease(receiver: Receiver) -> int:
        if len(receiver.requests) > 1:
            return 200
        with database.write() as session:
            session.execute(update(Delivery).values(lease_expires_at=utc_now() - timedelta(seconds=1)))
            assert take_back_expired_sends(session) == 1
        assert successor.deliver_due() == 1
        return 500

    with receiving(lambda _: lose_the_lease(receiver)) as receiver:
        (delivery_id,) = insert_deliveries(database, receiver.url)
        sender.deliver_due()
    assert receiver.ids == [delivery_id, delivery_id]
    assert get_delivery(database, delivery_id).status == DeliveryStatus.DELIVERED
    assert [attempt.status_code for attempt in attempts(database, delivery_id)] == [200]


SENDER_PROCESS = """
from models.db import Database
from tasks.deliver_webhook import WebhookSender
from vlmq.config import get_settings
settings = get_settings()
WebhookSender(settings, Database(settings.sqlalchemy_url)).deliver_due()
"""


def test_a_sender_killed_before_it_could_record_is_made_up_for_under_the_same_id(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    short = settings.model_copy(update={"timing": Timing(lease_s=0.2, heartbeat_s=0.1)})
    environment = os.environ | {
        "DATABASE_URL": settings.database_url,
        "VLMQ_DEV_ALLOW_PRIVATE_URLS": "true",
        "VLMQ_TIMING__LEASE_S": "0.2",
        "VLMQ_TIMING__HEARTBEAT_S": "0.1",
        "VLMQ_WEBHOOKS__TIMEOUT_S": "0.5",
        "VLMQ_WEBHOOKS__SECRET": MASTER,
    }
    killed: list[subprocess.Popen[bytes]] = []

    def kill_the_first(_: Request) -> int:
        if killed[0].poll() is None:
            killed[0].send_signal(signal.SIGKILL)
            killed[0].wait(10)
        return 200

    def take_back() -> int:
        with database.write() as session:
            return take_back_expired_sends(session)

    with receiving(kill_the_first) as receiver:
        (delivery_id,) = insert_deliveries(database, receiver.url)
        killed.append(subprocess.Popen([sys.executable, "-c", SENDER_PROCESS], env=environment))
        eventually(lambda: killed[0].poll() is not None)
        assert get_delivery(database, delivery_id).status == DeliveryStatus.SENDING
        eventually(take_back, within_s=5)
        assert WebhookSender(short, database).deliver_due() == 1
    assert killed[0].returncode == -signal.SIGKILL
    assert receiver.ids == [delivery_id, delivery_id]
    assert receiver.requests[0].body == receiver.requests[1].body
    assert get_delivery(database, delivery_id).status == DeliveryStatus.DELIVERED


def test_among_failing_hanging_and_resetting_receivers_every_delivery_ends(
    settings: Settings, database: Database
) -> None:
    """F12 of the fault matrix, in small: 30 % errors, 10 % hangs, 5 % resets, redirects, receivers that are gone."""
    chance, lock = Random(7), threading.Lock()
    settings = adjusted(settings, timeout_s=0.3, retry_after_s=(0.01,) * 8, max_in_flight_per_host=8)
    sender = WebhookSender(settings, database)
    accepted: set[str] = set()

    def misbehave(request: Request) -> int | None:
        with lock:
            draw = chance.random()
        if draw < 0.30:
            return 500
        if draw < 0.40:
            receiver.hang(request)
            return None
        if draw < 0.45:
            request.reset_connection()
            return None
        if draw < 0.48:
            return 302
        if draw < 0.50:
            return 410
        accepted.add(request.id)
        return 200

    def finished() -> bool:
        for thread in deliver_in_threads(sender, 8):
            thread.join(30)
        return all(d.status in (DeliveryStatus.DELIVERED, DeliveryStatus.DEAD) for d in deliveries(database))

    with receiving(misbehave) as receiver:
        ids = insert_deliveries(database, receiver.url, 100)
        eventually(finished, within_s=40)
    rows = deliveries(database)
    delivered = {row.id for row in rows if row.status == DeliveryStatus.DELIVERED}
    assert set(receiver.ids) == set(ids)
    assert delivered <= accepted
    assert len(delivered) > 85
    assert all(len(attempts(database, row.id)) == row.tries for row in rows)
