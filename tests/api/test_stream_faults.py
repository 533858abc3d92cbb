"""What readers get when streams, announcements and connections are lost."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
import requests

from api import event_hub
from models.job import JobStatus
from tests.api.conftest import Server
from tests.api.following import TIMEOUT_S, follow, follow_to_end, reader, subscribers
from tests.tasks.rows import eventually
from vlmq.events import EVENTS_CHANNEL, Event, EventId


def test_a_lost_stream_of_a_finished_job_is_served_from_the_database(server: Server) -> None:
    job_id = server.submit()
    server.worker.run(job_id, "the whole", " answer")
    server.worker.event_log.delete(job_id)
    (message,) = follow_to_end(server, job_id)
    data = json.loads(message.data)
    assert (message.id, message.event) == ("1-1", "status")
    assert (data["status"], data["output_text"], data["from_database"]) == ("completed", "the whole answer", True)


@pytest.mark.parametrize("nonsense", [b"nonsense", b"[[1]]", b"\xff"])
def test_an_announcement_that_cannot_be_read_ends_no_stream(server: Server, nonsense: bytes) -> None:
    job_id = server.submit()
    job = server.worker.claim(job_id)
    with follow(server, job_id) as messages:
        server.worker.say(job, "one ")
        assert next(messages).data == '{"text": "one "}'
        eventually(lambda: subscribers(server) > 0)
        redis.Redis.from_url(server.redis_url).publish(EVENTS_CHANNEL, nonsense)
        server.worker.say(job, "two")
        assert next(messages).data == '{"text": "two"}'
        server.worker.end(job, "one two")
        assert json.loads(next(messages).data)["output_text"] == "one two"


@pytest.mark.parametrize("stream_survives", [True, False])
def test_an_end_that_was_never_announced_is_found_in_the_database(server: Server, stream_survives: bool) -> None:
    job_id = server.submit()
    job = server.worker.claim(job_id)
    server.worker.say(job, "partial")
    with reader(server, job_id) as future:
        if not stream_survives:
            server.worker.event_log.delete(job_id)
        server.worker.write_end(job, "partial and more")
        first, last = future.result(TIMEOUT_S)
    assert (first.id, last.id, last.event) == ("1-1", "1-2", "status")
    assert json.loads(last.data)["output_text"] == "partial and more"


def test_a_late_reader_of_a_stream_without_its_beginning_is_told_of_the_gap(server: Server) -> None:
    job_id = server.submit()
    job = server.worker.claim(job_id)
    server.worker.say(job, "lost", "lost")
    server.worker.event_log.delete(job_id)
    client = redis.Redis.from_url(server.redis_url)
    client.xadd(f"vlmq:job:{job_id}:events", {"type": "delta", "data": '{"text": "kept"}'}, id="1-3")
    with follow(server, job_id) as messages:
        gap, kept = next(messages), next(messages)
        assert (gap.id, gap.event, json.loads(gap.data)) == ("1-0", "gap", {"after": "1-0", "before": "1-3"})
        assert (kept.id, kept.event) == ("1-3", "delta")


def test_an_event_whose_announcement_was_lost_is_read_from_the_log(server: Server) -> None:
    job_id = server.submit()
    job = server.worker.claim(job_id)
    server.worker.say(job, "one ")
    client = redis.Redis.from_url(server.redis_url)
    with follow(server, job_id) as messages:
        assert next(messages).id == "1-1"
        client.xadd(f"vlmq:job:{job_id}:events", {"type": "delta", "data": '{"text": "two "}'}, id="1-2")
        server.worker.event_log.append([(job_id, Event(EventId(1, 3), "delta", {"text": "three"}))])
        assert [next(messages).id, next(messages).id] == ["1-2", "1-3"]


def test_a_stale_attempt_and_doubled_events_do_not_reach_readers(server: Server) -> None:
    job_id = server.submit()
    job = server.worker.claim(job_id)
    server.worker.say(job, "one ")
    server.worker.fail_for_now(job)
    with follow(server, job_id) as messages:
        assert [next(messages).id, next(messages).id] == ["1-1", "1-2"]
        second = server.worker.claim(job_id)
        first_event = server.worker.say(second, "one ")[0]
        assert next(messages).id == "2-1"
        server.worker.say(job, "stale")
        server.worker.event_log.append([(job_id, first_event)])
        server.worker.end(second, "one ")
        assert [message.id for message in messages] == ["2-2"]


def test_readers_survive_a_lost_redis_connection(server: Server) -> None:
    job_id = server.submit()
    job = server.worker.claim(job_id)
    server.worker.say(job, "one ")
    client = redis.Redis.from_url(server.redis_url)
    with follow(server, job_id) as messages:
        assert next(messages).id == "1-1"
        for connection in client.client_list(_type="pubsub"):
            client.client_kill(connection["addr"])
        server.worker.say(job, "two ")
        assert next(messages).id == "1-2"
        server.worker.end(job, "one two ")
        assert [message.id for message in messages] == ["1-3"]


def test_a_reader_of_a_deleted_job_is_let_go(server: Server) -> None:
    job_id = server.submit()
    with follow(server, job_id) as messages, ThreadPoolExecutor(1) as pool:
        rest = pool.submit(list, messages)
        requests.post(f"{server.url}/v1/jobs/{job_id}/cancel", timeout=TIMEOUT_S)
        (end,) = rest.result(TIMEOUT_S)
    assert json.loads(end.data)["status"] == JobStatus.CANCELLED


def test_a_reader_that_is_slower_than_its_job_misses_nothing() -> None:
    reader = event_hub.Reader(read_log=True)
    assert reader.take(0).read_log
    events = [Event(EventId(1, number), "delta", {"text": str(number)}) for number in range(1, 3000)]
    for event in events[: event_hub.MAX_WAITING]:
        reader.push(event)
    assert reader.take(0).events == events[: event_hub.MAX_WAITING]
    for event in events:
        reader.push(event)
    news = reader.take(0)
    # The queue was dropped, so the log has the rest.
    assert news.read_log
    assert news.events == []
