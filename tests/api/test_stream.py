"""The stream as a client sees it, from the real server."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import redis
import requests

from api import event_hub
from models.job import JobStatus
from tests.api.conftest import Server
from tests.tasks.rows import eventually
from vlmq.events import EVENTS_CHANNEL, Event, EventId
from vlmq.sse import Message, read_events

TIMEOUT_S = 30


@contextmanager
def follow(server: Server, job_id: str, after: str | None = None) -> Iterator[Iterator[Message]]:
    headers = {"Last-Event-ID": after} if after else {}
    url = f"{server.url}/v1/jobs/{job_id}/events"
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        assert response.status_code == 200, response.text
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.headers["X-Accel-Buffering"] == "no"
        yield read_events(response.iter_content(chunk_size=None))


def follow_to_end(server: Server, job_id: str, after: str | None = None) -> list[Message]:
    with follow(server, job_id, after) as messages:
        return list(messages)


def as_messages(events: list[Event]) -> list[tuple[str, str, object]]:
    return [(str(event.id), event.type, event.data) for event in events]


def seen(messages: list[Message]) -> list[tuple[str, str, object]]:
    return [(message.id, message.event, json.loads(message.data)) for message in messages]


def text_of(messages: list[Message]) -> str:
    return "".join(json.loads(message.data)["text"] for message in messages if message.event == "delta")


@contextmanager
def reader(server: Server, job_id: str, after: str | None = None) -> Iterator[Future[list[Message]]]:
    """A client in the background that is subscribed by now."""
    connected = threading.Event()

    def read() -> list[Message]:
        with follow(server, job_id, after) as messages:
            found = []
            for message in messages:
                connected.set()
                found.append(message)
            return found

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(read)
        assert connected.wait(TIMEOUT_S) or future.done()
        yield future


def test_a_reader_gets_the_whole_stream_of_a_job_that_is_over_and_the_stream_ends(server: Server) -> None:
    job_id = server.submit()
    events = server.worker.run(job_id, "A red", " circle", ".")
    assert seen(follow_to_end(server, job_id)) == as_messages(events)


def test_a_stream_resumes_at_every_place_with_exactly_the_rest(server: Server) -> None:
    job_id = server.submit()
    job = server.worker.claim(job_id)
    events = [server.worker.emit(job, "progress", {"stage": "media"}), *server.worker.say(job, "a", "b\n", "ü")]
    server.worker.fail_for_now(job)
    first_attempt = server.worker.event_log.read(job_id)
    assert len(first_attempt) == len(events) + 1
    events = first_attempt + server.worker.run(job_id, "a", "b")
    for at, event in enumerate(events[:-1]):
        assert seen(follow_to_end(server, job_id, str(event.id))) == as_messages(events[at + 1 :])
    url = f"{server.url}/v1/jobs/{job_id}/events?starting_after={events[2].id}"
    with requests.get(url, stream=True, timeout=TIMEOUT_S) as response:
        assert seen(list(read_events(response.iter_content(None)))) == as_messages(events[3:])


def test_a_reader_who_has_seen_the_end_is_told_not_to_come_back(server: Server) -> None:
    job_id = server.submit()
    events = server.worker.run(job_id, "a")
    answer = requests.get(
        f"{server.url}/v1/jobs/{job_id}/events", headers={"Last-Event-ID": str(events[-1].id)}, timeout=TIMEOUT_S
    )
    assert (answer.status_code, answer.content) == (204, b"")


def test_a_reader_follows_a_running_job_token_by_token(server: Server) -> None:
    job_id = server.submit()
    job = server.worker.claim(job_id)
    server.worker.say(job, "one ")
    with follow(server, job_id) as messages:
        assert next(messages).data == '{"text": "one "}'
        server.worker.say(job, "two ")
        assert next(messages).data == '{"text": "two "}'
        server.worker.end(job, "one two ")
        assert json.loads(next(messages).data)["output_text"] == "one two "
        assert list(messages) == []


def test_a_reader_may_come_before_the_job_starts(server: Server) -> None:
    job_id = server.submit()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(follow_to_end, server, job_id)
        eventually(lambda: subscribers(server) > 0)
        events = server.worker.run(job_id, "a", "b")
        assert seen(future.result(TIMEOUT_S)) == as_messages(events)


def test_readers_who_drop_and_come_back_anywhere_get_every_byte_once(server: Server) -> None:
    job_id = server.submit()
    job = server.worker.claim(job_id)
    words = [f"w{number} " for number in range(300)]
    server.worker.say(job, words[0])

    def write() -> None:
        for word in words[1:]:
            server.worker.say(job, word)
        server.worker.end(job, "".join(words))

    def read_in_pieces(piece: int) -> str:
        found: list[Message] = []
        while not found or json.loads(found[-1].data).get("status") != "completed":
            with follow(server, job_id, found[-1].id if found else None) as messages:
                for _, message in zip(range(piece), messages, strict=False):
                    found.append(message)
        assert len({message.id for message in found}) == len(found)
        return text_of(found)

    with ThreadPoolExecutor(5) as pool:
        readers = [pool.submit(read_in_pieces, piece) for piece in (17, 40, 90, 1000)]
        pool.submit(write).result(TIMEOUT_S)
        assert {reader.result(TIMEOUT_S) for reader in readers} == {"".join(words)}


def test_a_lost_stream_of_a_finished_job_is_served_from_the_database(server: Server) -> None:
    job_id = server.submit()
    server.worker.run(job_id, "the whole", " answer")
    server.worker.event_log.delete(job_id)
    (message,) = follow_to_end(server, job_id)
    data = json.loads(message.data)
    assert (message.id, message.event) == ("1-1", "status")
    assert (data["status"], data["output_text"], data["from_database"]) == ("completed", "the whole answer", True)


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


def test_a_quiet_stream_carries_heartbeats(server: Server) -> None:
    job_id = server.submit()
    with requests.get(f"{server.url}/v1/jobs/{job_id}/events", stream=True, timeout=TIMEOUT_S) as response:
        lines = response.iter_lines()
        assert next(lines).startswith(b"retry: ")
        comments = [line for line, _ in zip(lines, range(4), strict=False) if line.startswith(b":")]
        assert comments


@pytest.mark.parametrize("given", ["garbage", "1", "1-2-3", "-1-2", "1-x", "1-2\x00", "999999999999-1"])
def test_a_place_that_is_none_is_refused(server: Server, given: str) -> None:
    job_id = server.submit()
    url = f"{server.url}/v1/jobs/{job_id}/events"
    answers = [requests.get(url, params={"starting_after": given}, timeout=TIMEOUT_S)]
    if "\x00" not in given:
        answers.append(requests.get(url, headers={"Last-Event-ID": given}, timeout=TIMEOUT_S))
    for answer in answers:
        assert answer.status_code == (422 if "\x00" in given else 400)
        assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_reader_of_a_deleted_job_is_let_go(server: Server) -> None:
    job_id = server.submit()
    with follow(server, job_id) as messages, ThreadPoolExecutor(1) as pool:
        rest = pool.submit(list, messages)
        requests.post(f"{server.url}/v1/jobs/{job_id}/cancel", timeout=TIMEOUT_S)
        (end,) = rest.result(TIMEOUT_S)
    assert json.loads(end.data)["status"] == JobStatus.CANCELLED


def test_a_reader_that_is_slower_than_its_job_misses_nothing() -> None:
    reader = event_hub.Reader()
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


def subscribers(server: Server) -> int:
    ((_, count),) = redis.Redis.from_url(server.redis_url).pubsub_numsub(EVENTS_CHANNEL)
    return int(count)
