"""One Redis subscription for a whole API process, handed out to those who follow a job."""

import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import redis
import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from models.db import Database
from models.job import Job
from vlmq.events import EVENTS_CHANNEL, Event, Subscriber, decode_announcement

log = structlog.get_logger(__name__)

# What a reader that is slower than its job may have waiting; beyond that it reads the log again.
MAX_WAITING = 1000
# How often the rows of all followed jobs are looked at, for streams that fell silent.
SWEEP_S = 2.0
_IDS_A_QUERY = 1000


@dataclass(frozen=True, slots=True)
class News:
    """What has come up for a reader since it last asked.

    `read_log`: announcements may have been missed, so the log is to be read before `events` are gone through.
    `row_is_final`: the database says that the job is over. `closed`: nothing more will come from here.
    """

    events: list[Event]
    read_log: bool
    row_is_final: bool
    closed: bool


class Reader:
    """What is announced about one job, kept for one follower."""

    def __init__(self, *, read_log: bool) -> None:
        self._events: deque[Event] = deque()
        self._read_log = read_log
        self._row_is_final = False
        self._closed = False
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._wake.set()

    def take(self, timeout: float) -> News:
        """Wait for news, for `timeout` seconds at most."""
        self._wake.wait(max(timeout, 0))
        with self._lock:
            self._wake.clear()
            news = News(list(self._events), self._read_log, self._row_is_final, self._closed)
            self._events.clear()
            self._read_log = False
        return news

    def push(self, event: Event) -> None:
        with self._lock:
            if len(self._events) >= MAX_WAITING:
                self._events.clear()
                self._read_log = True
            # An event is in the log before it is announced, so whoever will read the log needs no queue.
            if not self._read_log:
                self._events.append(event)
            self._wake.set()

    def missed_some(self) -> None:
        with self._lock:
            self._read_log = True
            self._wake.set()

    def note_final_row(self) -> None:
        with self._lock:
            if not self._row_is_final:
                self._row_is_final = True
                self._wake.set()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._wake.set()


class EventHub:
    """Hands announcements to readers. Starts with its first reader, after the server's fork."""

    def __init__(self, client: "redis.Redis", database: Database) -> None:
        self._database = database
        self._subscriber = Subscriber(client, EVENTS_CHANNEL, self._dispatch, self._after_reconnect)
        self._sweeper = threading.Thread(target=self._sweep_on, name="stream sweeper", daemon=True)
        self._readers: dict[str, set[Reader]] = defaultdict(set)
        self._lock = threading.Lock()
        self._started = False
        self._closed = threading.Event()

    @contextmanager
    def follow(self, job_id: str, *, read_log: bool = True) -> Iterator[Reader]:
        """A reader of this job's announcements from now on, whose first news say `read_log` unless told otherwise."""
        reader = Reader(read_log=read_log)
        with self._lock:
            if not self._started:
                self._started = True
                self._subscriber.start()
                self._sweeper.start()
            self._readers[job_id].add(reader)
        if self._closed.is_set():
            reader.close()
        try:
            yield reader
        finally:
            with self._lock:
                self._readers[job_id].discard(reader)
                if not self._readers[job_id]:
                    del self._readers[job_id]

    def close(self) -> None:
        """End all readers; they say goodbye to their clients, who come back to another process."""
        self._closed.set()
        for readers in self._snapshot().values():
            for reader in readers:
                reader.close()
        if self._started:
            self._subscriber.stop()

    def _snapshot(self) -> dict[str, list[Reader]]:
        with self._lock:
            return {job_id: list(readers) for job_id, readers in self._readers.items()}

    def _dispatch(self, message: str) -> None:
        for job_id, event in decode_announcement(message):
            with self._lock:
                readers = list(self._readers.get(job_id, ()))
            for reader in readers:
                reader.push(event)

    def _after_reconnect(self) -> None:
        for readers in self._snapshot().values():
            for reader in readers:
                reader.missed_some()

    def _sweep_on(self) -> None:
        while not self._closed.wait(SWEEP_S):
            followed = self._snapshot()
            if not followed:
                continue
            try:
                self._sweep(followed)
            except SQLAlchemyError as error:
                log.warning("could not look at the followed jobs", error=str(error))

    def _sweep(self, followed: dict[str, list[Reader]]) -> None:
        """Tell readers whose job is over, or gone, in the database: their stream may never say so."""
        ids = list(followed)
        final: dict[str, bool] = {}
        with self._database.read() as session:
            for start in range(0, len(ids), _IDS_A_QUERY):
                chunk = ids[start : start + _IDS_A_QUERY]
                rows = session.execute(select(Job.id, Job.status).where(Job.id.in_(chunk)))
                final |= {job_id: status.is_final for job_id, status in rows}
        for job_id, readers in followed.items():
            for reader in readers:
                if job_id not in final:
                    reader.close()
                elif final[job_id]:
                    reader.note_final_row()
