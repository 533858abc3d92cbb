import pytest
from pydantic import SecretStr

from models.db import Database, utc_now
from models.delivery import Delivery, DeliveryStatus
from models.outbox import redeliver
from tasks.deliver_webhook import WebhookSender
from tests.tasks.receiver import MASTER, Request, adjusted, receiving
from tests.tasks.rows import attempts, deliveries, eventually, get_delivery, insert_deliveries
from vlmq.config import Settings
from vlmq.signing import new_master_secret, tenant_secrets


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return adjusted(settings)


@pytest.fixture
def sender(settings: Settings, database: Database) -> WebhookSender:
    return WebhookSender(settings, database)


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
