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
from pydantic import SecretStr
from sqlalchemy import update

from models.db import Database, utc_now
from models.delivery import Delivery, DeliveryStatus
from models.outbox import redeliver, take_back_expired_sends
from tasks.deliver_webhook import WebhookSender
from tests.tasks.receiver import Receiver, Request, receiving
from tests.tasks.rows import attempts, deliveries, eventually, get_delivery, insert_deliveries
from vlmq.config import Settings, Timing
from vlmq.signing import new_master_secret, tenant_secrets

MASTER = new_master_secret()
GIVE_UP_AFTER = (0.0, 0.0)


def adjusted(settings: Settings, **webhooks: object) -> Settings:
    values: dict[str, object] = {"secret": SecretStr(MASTER), "timeout_s": 1.0, "retry_after_s": GIVE_UP_AFTER}
    return settings.model_copy(update={"webhooks": settings.webhooks.model_copy(update=values | webhooks)})


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


def test_a_delivery_arrives_signed_and_is_recorded(sender: WebhookSender, database: Database) -> None:
    with receiving() as receiver:
        (delivery_id,) = insert_deliveries(database, receiver.url)
        assert sender.deliver_due() == 1
    (request,) = receiver.requests
    message = request.verified(tenant_secrets(sender.settings, "acme")[0])
    assert request.id == delivery_id
    assert message["type"] == "job.completed"
    assert message["data"]["output_text"] == "ein Würfel 🟩"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("vlmq/")
    assert get_delivery(database, delivery_id).status == DeliveryStatus.DELIVERED
    (attempt,) = attempts(database, delivery_id)
    assert (attempt.number, attempt.status_code, attempt.error) == (1, 200, None)


def test_one_call_delivers_everything_that_is_due_the_longest_due_first(
    sender: WebhookSender, database: Database
) -> None:
    with receiving() as receiver:
        ids = insert_deliveries(database, receiver.url, 5)
        assert sender.deliver_due() == 5
    assert receiver.ids == ids


def test_a_500_is_tried_again_with_the_same_id_and_body(sender: WebhookSender, database: Database) -> None:
    answers = iter([500, 200])
    with receiving(lambda _: next(answers)) as receiver:
        (delivery_id,) = insert_deliveries(database, receiver.url)
        assert sender.deliver_due() == 2
    assert receiver.ids == [delivery_id, delivery_id]
    assert receiver.requests[0].body == receiver.requests[1].body
    assert [attempt.status_code for attempt in attempts(database, delivery_id)] == [500, 200]
    assert get_delivery(database, delivery_id).status == DeliveryStatus.DELIVERED


def test_a_failed_try_is_due_again_by_the_schedule_give_or_take_a_tenth(settings: Settings, database: Database) -> None:
    with receiving(lambda _: 503) as receiver:
        insert_deliveries(database, receiver.url, 8)
        WebhookSender(adjusted(settings, retry_after_s=(100.0,)), database).deliver_due()
    waits = [(delivery.due_at - utc_now()).total_seconds() for delivery in deliveries(database)]
    assert all(85 < wait <= 110 for wait in waits)
    assert len({round(wait, 3) for wait in waits}) > 1


def test_a_receiver_that_never_accepts_is_given_up_after_the_schedule(
    sender: WebhookSender, database: Database
) -> None:
    with receiving(lambda _: 404) as receiver:
        (delivery_id,) = insert_deliveries(database, receiver.url)
        assert sender.deliver_due() == 3
    assert len(receiver.requests) == 3
    assert get_delivery(database, delivery_id).status == DeliveryStatus.DEAD


def test_a_410_ends_the_tries(sender: WebhookSender, database: Database) -> None:
    with receiving(lambda _: 410) as receiver:
        (delivery_id,) = insert_deliveries(database, receiver.url)
        assert sender.deliver_due() == 1
    assert get_delivery(database, delivery_id).status == DeliveryStatus.DEAD


def test_a_redirect_is_refused_and_not_followed(sender: WebhookSender, database: Database) -> None:
    with receiving() as target:

        def redirect(request: Request) -> None:
            request.handler.send_response(307)
            request.handler.send_header("Location", target.url)
            request.handler.end_headers()

        with receiving(redirect) as receiver:
            (delivery_id,) = insert_deliveries(database, receiver.url)
            sender.deliver_due()
        assert target.requests == []
    attempt = attempts(database, delivery_id)[0]
    assert (attempt.status_code, attempt.error) == (307, "redirect refused")
    assert get_delivery(database, delivery_id).status == DeliveryStatus.DEAD


def test_an_endless_answer_is_cut_and_its_nuls_replaced(sender: WebhookSender, database: Database) -> None:
    sent = 0

    def answer_a_gigabyte(request: Request) -> None:
        nonlocal sent
        request.handler.send_response(200)
        request.handler.send_header("Content-Length", str(2**30))
        request.handler.end_headers()
        for _ in range(2**14):
            sent += request.handler.wfile.write(b"\x00a" * 2**15)

    with receiving(answer_a_gigabyte) as receiver:
        (delivery_id,) = insert_deliveries(database, receiver.url)
        assert sender.deliver_due() == 1
        eventually(lambda: receiver.at_once == 0)
    assert sent < 2**26
    excerpt = attempts(database, delivery_id)[0].response_excerpt or ""
    assert excerpt == "\ufffda" * (len(excerpt) // 2)
    assert 0 < len(excerpt) <= 20 * 1024
    assert get_delivery(database, delivery_id).status == DeliveryStatus.DELIVERED


def test_a_receiver_that_never_answers_is_left_after_the_timeout(settings: Settings, database: Database) -> None:
    with receiving(lambda _: None) as receiver:
        receiver.answer = receiver.hang
        (delivery_id,) = insert_deliveries(database, receiver.url)
        WebhookSender(adjusted(settings, timeout_s=0.3, retry_after_s=()), database).deliver_due()
    (attempt,) = attempts(database, delivery_id)
    assert attempt.status_code is None
    assert attempt.error == "timed out after 0.3 s"
    assert 0.3 <= attempt.duration_s < 2


def test_a_closed_port_is_recorded_without_its_address(sender: WebhookSender, database: Database) -> None:
    with receiving() as receiver:
        url = receiver.url
    (delivery_id,) = insert_deliveries(database, url)
    sender.deliver_due()
    assert attempts(database, delivery_id)[0].error == "connection refused"


def test_a_url_that_has_become_private_gets_no_call(settings: Settings, database: Database) -> None:
    strict = settings.model_copy(update={"dev_allow_private_urls": False})
    with receiving() as receiver:
        (delivery_id,) = insert_deliveries(database, receiver.url)
        WebhookSender(strict, database).deliver_due()
    assert receiver.requests == []
    error = attempts(database, delivery_id)[0].error
    assert error is not None
    assert error.startswith("The URL ")
    assert "127.0.0.1" not in error


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


def test_a_dead_delivery_can_be_sent_again_under_its_id(sender: WebhookSender, database: Database) -> None:
    answers = iter([410, 204])
    with receiving(lambda _: next(answers)) as receiver:
        (delivery_id,) = insert_deliveries(database, receiver.url)
        sender.deliver_due()
        with database.write() as session:
            assert redeliver(session, session.get_one(Delivery, delivery_id))
        sender.deliver_due()
    assert receiver.ids == [delivery_id, delivery_id]
    assert get_delivery(database, delivery_id).status == DeliveryStatus.DELIVERED
    assert [attempt.status_code for attempt in attempts(database, delivery_id)] == [410, 204]


def test_while_the_secret_rotates_receivers_with_the_old_one_accept(settings: Settings, database: Database) -> None:
    (old_secret,) = tenant_secrets(settings, "acme")
    rotating = adjusted(settings, secret=SecretStr(new_master_secret()), previous_secret=SecretStr(MASTER))
    with receiving() as receiver:
        insert_deliveries(database, receiver.url)
        WebhookSender(rotating, database).deliver_due()
    (request,) = receiver.requests
    request.verified(old_secret)
    request.verified(tenant_secrets(rotating, "acme")[0])


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
