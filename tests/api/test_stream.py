"""The stream as a client sees it, from the real server."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.api.conftest import Server
from tests.api.following import TIMEOUT_S, as_messages, follow, follow_to_end, seen, subscribers, text_of
from tests.tasks.rows import eventually
from vlmq.sse import Message, read_events


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
