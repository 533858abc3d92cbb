"""Following a stream as a client does."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import redis
import requests

from tests.api.conftest import Server
from vlmq.events import EVENTS_CHANNEL, Event
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


@contextmanager
def submit_and_follow(
    server: Server, *, accept: str = "text/event-stream", key: str | None = None
) -> Iterator[tuple[requests.Response, Iterator[Message]]]:
    """POST a job and read its stream from the same answer."""
    headers = {"Accept": accept} | ({"Idempotency-Key": key} if key else {})
    body: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "hello"}]}
    url = f"{server.url}/v1/jobs"
    with requests.post(url, json=body, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        yield response, read_events(response.iter_content(chunk_size=None))


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


def subscribers(server: Server) -> int:
    ((_, count),) = redis.Redis.from_url(server.redis_url).pubsub_numsub(EVENTS_CHANNEL)
    return int(count)
