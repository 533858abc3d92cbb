"""One reader's way through a job's stream, as server-sent events, from any place, without a hole or a double."""

import json
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import structlog
from flask import Response
from sqlalchemy.exc import SQLAlchemyError

from api.event_hub import News
from api.services import Services
from models.db import utc_now
from models.job import Job
from vlmq.events import REDIS_ERRORS, Event, EventId

log = structlog.get_logger(__name__)

RECONNECT_MS = 1000
# How long the stream's own last event may lag behind the row before the row speaks for it.
FINAL_GRACE_S = 1.0
LOG_RETRY_S = 1.0
# The one event that has none before it.
FIRST = EventId(1, 1)
HEARTBEAT = ": still here\n\n"

STREAM = {
    "description": "Events: `status`, `progress`, `delta` (data.text), and `gap` where some were lost. The last is a "
    "`status` event that is final and carries the whole answer. 204 when there is nothing after Last-Event-ID.",
    "content": {
        "text/event-stream": {
            "schema": {"type": "string"},
            "example": 'id: 1-3\nevent: delta\ndata: {"text": "A red"}\n\n'
            'id: 1-4\nevent: status\ndata: {"status": "completed", "output_text": "A red circle."}\n\n',
        }
    },
}


def stream_response(service: Services, job: Job, after: EventId | None, *, new: bool = False) -> Response:
    """The job's stream to its end, from its beginning or from behind the event `after`. A `new` job has none yet."""
    return Response(
        JobStream(service, job, after, new=new).frames(),
        content_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


class JobStream:
    """It is subscribed before it reads the log, drops what it has already passed, and reads the log again whenever an
    announced event is not the next one. Where the log cannot fill a hole, it says so.
    """

    def __init__(self, service: Services, job: Job, after: EventId | None, *, new: bool) -> None:
        self._service, self._job_id, self._last, self._new = service, job.id, after, new
        self._log_unread = False
        # When the row speaks, unless the stream's own end comes first.
        self._row_speaks_at: float | None = None
        if job.status.is_final and job.finished_at is not None:
            settled = utc_now() - job.finished_at > timedelta(seconds=10 * FINAL_GRACE_S)
            self._row_speaks_at = time.monotonic() + (0 if settled else FINAL_GRACE_S)

    def frames(self) -> Iterator[str]:
        heartbeat_s = self._service.settings.timing.sse_heartbeat_s
        # Of a new job the log holds nothing; what may come before we listen is a hole like any other.
        with self._service.hub.follow(self._job_id, read_log=not self._new) as reader:
            yield f"retry: {RECONNECT_MS}\n\n"
            beat_at = time.monotonic() + heartbeat_s
            while True:
                news = reader.take(self._patience(beat_at))
                frames, ended = _frames_up_to_end(self._advance(news))
                if not ended and self._row_speaks():
                    last_word, ended = _frames_up_to_end(self._last_word())
                    frames += last_word
                if not frames and time.monotonic() >= beat_at:
                    frames = HEARTBEAT
                if frames:
                    yield frames
                    beat_at = time.monotonic() + heartbeat_s
                if ended or news.closed:
                    return

    def _patience(self, beat_at: float) -> float:
        due = [beat_at]
        if self._row_speaks_at is not None:
            due.append(self._row_speaks_at)
        if self._log_unread:
            due.append(time.monotonic() + LOG_RETRY_S)
        return min(due) - time.monotonic()

    def _row_speaks(self) -> bool:
        return self._row_speaks_at is not None and time.monotonic() >= self._row_speaks_at

    def _advance(self, news: News) -> Iterator[Event | str]:
        ends_silently = news.row_is_final and self._row_speaks_at is None
        if ends_silently:
            self._row_speaks_at = time.monotonic() + FINAL_GRACE_S
        if news.read_log or self._log_unread or ends_silently:
            yield from self._replay()
        for event in news.events:
            if self._is_news(event) and not self._is_next(event.id):
                yield from self._replay()
            if self._is_news(event):
                yield from self._pass_on(event)

    def _replay(self) -> Iterator[Event | str]:
        try:
            events = self._service.event_log.read(self._job_id, after=self._last)
        except REDIS_ERRORS as error:
            log.warning("could not read a stream; trying again", job=self._job_id, error=str(error))
            self._log_unread = True
            return
        self._log_unread = False
        for event in events:
            yield from self._pass_on(event)

    def _pass_on(self, event: Event) -> Iterator[Event | str]:
        begins = event.id.seq <= 1 and (self._last is None or event.id.attempt > self._last.attempt)
        if not begins and not self._is_next(event.id):
            # Its id is the place before the hole, so that a reader who comes back asks from there.
            place = self._last or EventId(event.id.attempt, 0)
            yield encode("gap", {"after": str(place), "before": str(event.id)}, place)
        self._last = event.id
        yield event

    def _is_news(self, event: Event) -> bool:
        return self._last is None or event.id > self._last

    def _is_next(self, event_id: EventId) -> bool:
        if self._last is None:
            return event_id == FIRST
        return event_id == (self._last.attempt, self._last.seq + 1)

    def _last_word(self) -> Iterator[Event | str]:
        """The final status as the row has it, for a stream that lost its own."""
        try:
            with self._service.database.read() as session:
                job = session.get(Job, self._job_id)
        except SQLAlchemyError as error:
            log.warning("could not read a job's end; trying again", job=self._job_id, error=str(error))
            self._row_speaks_at = time.monotonic() + LOG_RETRY_S
            return
        if job is None or not job.status.is_final:
            return
        last = self._last or EventId(job.attempt, 0)
        next_id = EventId(last.attempt, last.seq + 1) if last.attempt >= job.attempt else EventId(job.attempt, 1)
        yield Event(next_id, "status", job.status_data() | {"from_database": True})


def encode(type_: str, data: dict[str, Any], event_id: EventId) -> str:
    return f"id: {event_id}\nevent: {type_}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


def _frames_up_to_end(items: Iterable[Event | str]) -> tuple[str, bool]:
    frames = []
    for item in items:
        frames.append(item if isinstance(item, str) else encode(item.type, item.data, item.id))
        if isinstance(item, Event) and item.is_final:
            return "".join(frames), True
    return "".join(frames), False
