"""A job's stream: a log in Redis, numbered by attempt and position, and announced on one channel.

The log is a Redis Stream whose entry ids are `attempt-position`. Redis refuses an id that is not above the last, so a
worker that lost its job cannot write into the stream of the next attempt. Every append also publishes what it
appended, in the same round trip; a reader that subscribes first and reads the log afterwards misses nothing.
"""

import json
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import redis
import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry

from vlmq.errors import ErrorCode, VlmqError

log = structlog.get_logger(__name__)

EVENTS_CHANNEL = "vlmq:events"
CANCEL_CHANNEL = "vlmq:cancel"
# Longer than any job may run; a finished job's stream gets the shorter time of the settings.
RUNNING_TTL_S = 7 * 24 * 3600

# What a Redis raises that is away, or that takes no writes (no memory, a replica, a full disk).
REDIS_ERRORS = (redis.ConnectionError, redis.TimeoutError, redis.ResponseError)


class EventId(NamedTuple):
    """Where an event stands: compares as Redis compares its ids."""

    attempt: int
    seq: int

    def __str__(self) -> str:
        return f"{self.attempt}-{self.seq}"

    @classmethod
    def parse(cls, text: str) -> "EventId":
        """Read `attempt-seq`.

        Raises:
            VlmqError: INVALID_CURSOR.
        """
        match = re.fullmatch(r"(\d{1,9})-(\d{1,9})", text)
        if match is None:
            raise VlmqError(ErrorCode.INVALID_CURSOR, 'An event id has the form "attempt-sequence", such as "1-42".')
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True)
class Event:
    """One message of a job's stream. `type` is `status`, `progress` or `delta`; `data` is its JSON object."""

    id: EventId
    type: str
    data: dict[str, Any]

    @property
    def is_final(self) -> bool:
        return self.type == "status" and self.data.get("status") in ("completed", "failed", "cancelled", "expired")


def connect(redis_url: str, *, timeout_s: float = 5) -> "redis.Redis":
    """A client that fails within seconds rather than waiting for a hung server.

    A lost connection is made anew once; a server that does not answer in time is not asked twice.
    """
    keepalive = {} if redis_url.startswith("unix:") else {"socket_keepalive": True}
    return redis.Redis.from_url(
        redis_url,
        **keepalive,
        decode_responses=True,
        socket_timeout=timeout_s,
        socket_connect_timeout=2,
        health_check_interval=10,
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    )


def _key(job_id: str) -> str:
    return f"vlmq:job:{job_id}:events"


class Appended(NamedTuple):
    """What became of an append: jobs whose stream had moved on, and jobs whose stream Redis no longer has."""

    refused: set[str]
    lost: set[str]


class EventLog:
    """Append to and read from the streams of jobs. Raises redis' errors (`REDIS_ERRORS`) when Redis is away."""

    def __init__(self, client: "redis.Redis", *, final_ttl_s: int) -> None:
        self._redis = client
        self._final_ttl_s = final_ttl_s

    def append(self, entries: Sequence[tuple[str, Event]]) -> Appended:
        """Append events of any number of jobs and announce them, in one round trip."""
        pipe = self._redis.pipeline(transaction=False)
        for job_id, event in entries:
            fields = {"type": event.type, "data": json.dumps(event.data, ensure_ascii=False)}
            # Only the first event of an attempt may begin a stream: so a stream that Redis lost is noticed.
            pipe.xadd(_key(job_id), cast(Any, fields), id=str(event.id), nomkstream=event.id.seq > 1)
        for job_id in dict.fromkeys(job_id for job_id, _ in entries):
            final = any(event.is_final for owner, event in entries if owner == job_id)
            pipe.expire(_key(job_id), self._final_ttl_s if final else RUNNING_TTL_S)
        pipe.publish(EVENTS_CHANNEL, encode_announcement(entries))
        replies = pipe.execute(raise_on_error=False)
        refused, lost = set(), set()
        for (job_id, _), reply in zip(entries, replies, strict=False):
            if reply is None:
                lost.add(job_id)
            elif isinstance(reply, redis.ResponseError) and "equal or smaller" in str(reply):
                refused.add(job_id)
            elif isinstance(reply, Exception):
                raise reply
        return Appended(refused, lost)

    def append_after(self, job_id: str, attempt: int, data: dict[str, Any]) -> None:
        """Append a status after an attempt, for those who do not hold the job (a cancel, an expiry, a lost lease).

        It stands before the next attempt's own first event, save a final one, which no attempt follows. So Redis
        refuses whatever the old attempt still sends, and refuses this when the stream already tells a later story.
        """
        status = Event(EventId(attempt + 1, 0), "status", data)
        if status.is_final:
            status = replace(status, id=EventId(attempt + 1, 1))
        self.append([(job_id, status)])

    def read(self, job_id: str, *, after: EventId | None = None) -> list[Event]:
        """The events after `after`, or all of them."""
        start = "-" if after is None else f"({after}"
        entries = cast("list[tuple[str, dict[str, str]]]", self._redis.xrange(_key(job_id), min=start))
        return [Event(EventId.parse(id_), fields["type"], json.loads(fields["data"])) for id_, fields in entries]

    def last_id(self, job_id: str) -> EventId | None:
        entries = cast("list[tuple[str, Any]]", self._redis.xrevrange(_key(job_id), count=1))
        return EventId.parse(entries[0][0]) if entries else None

    def delete(self, job_id: str) -> None:
        self._redis.delete(_key(job_id))

    def announce_cancel(self, job_id: str) -> None:
        """Tell the worker that holds the job to stop it now; the row says so as well."""
        self._redis.publish(CANCEL_CHANNEL, job_id)


def partial_text(events: Sequence[Event], attempt: int) -> str:
    """What an attempt has generated so far."""
    return "".join(event.data["text"] for event in events if event.id.attempt == attempt and event.type == "delta")


def encode_announcement(entries: Sequence[tuple[str, Event]]) -> str:
    rows = [[job_id, event.id.attempt, event.id.seq, event.type, event.data] for job_id, event in entries]
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))


def decode_announcement(message: str) -> list[tuple[str, Event]]:
    return [
        (job_id, Event(EventId(attempt, seq), type_, data)) for job_id, attempt, seq, type_, data in json.loads(message)
    ]


class Subscriber:
    """A thread that hands every message of one channel to `on_message`, and comes back when Redis was away.

    `on_reconnect` is called after each (re)connection: messages may have been missed before it.
    """

    def __init__(
        self,
        client: "redis.Redis",
        channel: str,
        on_message: Callable[[str], None],
        on_reconnect: Callable[[], None] = lambda: None,
    ) -> None:
        self._redis, self._channel = client, channel
        self._on_message, self._on_reconnect = on_message, on_reconnect
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"subscribe {channel}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._listen()
            except REDIS_ERRORS as error:
                log.warning("lost the Redis subscription; trying again", channel=self._channel, error=str(error))
                self._stop.wait(0.5)
            except Exception:
                # Nobody would notice that this thread is gone: streams would just fall silent.
                log.exception("a message could not be handled; subscribing anew", channel=self._channel)
                self._stop.wait(0.5)

    def _listen(self) -> None:
        with self._redis.pubsub(ignore_subscribe_messages=False) as pubsub:
            pubsub.subscribe(self._channel)
            while not self._stop.is_set():
                message = pubsub.get_message(timeout=1.0)
                if message is None:
                    continue
                # redis-py reconnects and subscribes again on its own; the confirmation is how one learns of it.
                if message["type"] == "subscribe":
                    self._on_reconnect()
                elif message["type"] == "message":
                    self._on_message(str(message["data"]))
