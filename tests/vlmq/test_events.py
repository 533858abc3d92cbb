import json
import queue

import pytest
import redis

from vlmq.errors import ErrorCode, VlmqError
from vlmq.events import (
    EVENTS_CHANNEL,
    Event,
    EventId,
    EventLog,
    Subscriber,
    connect,
    decode_announcement,
    partial_text,
)


def delta(attempt: int, seq: int, text: str = "x") -> Event:
    return Event(EventId(attempt, seq), "delta", {"text": text})


def test_events_are_read_in_order_and_after_a_position(event_log: EventLog) -> None:
    events = [delta(1, seq, str(seq)) for seq in range(1, 12)]
    event_log.append([("job_a", event) for event in events])
    assert event_log.read("job_a") == events
    assert event_log.read("job_a", after=EventId(1, 9)) == events[9:]


def test_an_attempt_that_the_stream_has_left_behind_is_refused(event_log: EventLog) -> None:
    event_log.append([("job_a", delta(1, 1))])
    event_log.append([("job_a", delta(2, 1))])
    assert event_log.append([("job_a", delta(1, 2)), ("job_b", delta(1, 1))]).refused == {"job_a"}
    assert [event.id for event in event_log.read("job_a")] == [(1, 1), (2, 1)]
    assert len(event_log.read("job_b")) == 1


def test_a_stream_that_redis_lost_is_noticed(event_log: EventLog) -> None:
    event_log.append([("job_a", delta(1, 1))])
    event_log.delete("job_a")
    assert event_log.append([("job_a", delta(1, 2))]).lost == {"job_a"}
    assert event_log.read("job_a") == []


def test_a_job_that_is_taken_back_says_so_between_two_attempts(event_log: EventLog) -> None:
    event_log.append([("job_a", delta(1, 1)), ("job_a", delta(1, 2))])
    event_log.append_after("job_a", 1, {"status": "queued"})
    assert event_log.append([("job_a", delta(1, 3)), ("job_a", delta(1, 4))]).refused == {"job_a"}
    event_log.append([("job_a", delta(2, 1))])
    assert [event.id for event in event_log.read("job_a")] == [(1, 1), (1, 2), (2, 0), (2, 1)]


def test_a_job_that_never_ran_can_have_an_end(event_log: EventLog) -> None:
    event_log.append_after("job_a", 0, {"status": "cancelled"})
    assert [event.id for event in event_log.read("job_a")] == [(1, 1)]


def test_a_job_that_was_taken_back_can_end_in_the_queue(event_log: EventLog) -> None:
    event_log.append([("job_a", delta(1, 1))])
    event_log.append_after("job_a", 1, {"status": "queued"})
    event_log.append_after("job_a", 1, {"status": "cancelled"})
    assert [event.id for event in event_log.read("job_a")] == [(1, 1), (2, 0), (2, 1)]


def test_word_of_an_old_attempt_is_dropped_and_twice_said_is_once_kept(event_log: EventLog) -> None:
    event_log.append_after("job_a", 1, {"status": "queued"})
    event_log.append_after("job_a", 1, {"status": "queued"})
    event_log.append([("job_a", delta(2, 1))])
    event_log.append_after("job_a", 1, {"status": "queued"})
    assert [event.id for event in event_log.read("job_a")] == [(2, 0), (2, 1)]


def test_a_finished_stream_lives_for_its_time_only(event_log: EventLog, redis_url: str) -> None:
    event_log.append([("job_a", Event(EventId(1, 1), "status", {"status": "completed"}))])
    event_log.append([("job_b", Event(EventId(1, 1), "status", {"status": "in_progress"}))])
    client = redis.Redis.from_url(redis_url)
    assert client.ttl("vlmq:job:job_a:events") <= 600
    assert client.ttl("vlmq:job:job_b:events") > 600


def test_partial_text_is_of_one_attempt_only() -> None:
    assert partial_text([delta(1, 2, "old"), delta(2, 2, "a "), delta(2, 3, "cat")], attempt=2) == "a cat"


@pytest.mark.parametrize("text", ["garbage", "1", "-1", "1-", "1-2-3", "1-1234567890", "١-٢x", "", "1-2 "])
def test_an_id_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(VlmqError) as refusal:
        EventId.parse(text)
    assert refusal.value.code == ErrorCode.INVALID_CURSOR


def test_appended_events_are_announced_and_a_subscriber_outlives_its_connection(
    event_log: EventLog, redis_url: str
) -> None:
    received: queue.Queue[str] = queue.Queue()
    connections: queue.Queue[None] = queue.Queue()
    subscriber = Subscriber(connect(redis_url), EVENTS_CHANNEL, received.put, lambda: connections.put(None))
    subscriber.start()
    try:
        connections.get(timeout=10)
        event_log.append([("job_a", delta(1, 1)), ("job_b", delta(4, 1))])
        announced = decode_announcement(received.get(timeout=10))
        assert announced == [("job_a", delta(1, 1)), ("job_b", delta(4, 1))]
        redis.Redis.from_url(redis_url).execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        connections.get(timeout=10)
        event_log.append([("job_c", delta(1, 1))])
        assert json.loads(received.get(timeout=10))[0][0] == "job_c"
    finally:
        subscriber.stop()
