"""What a worker does to rows and streams, step by step, as a test needs it; and images to send."""

import struct
import zlib
from typing import Any

from models.claims import claim_next
from models.db import Database
from models.job import Job, JobStatus, Outcome
from models.lifecycle import finish, try_again
from vlmq.events import Event, EventId, EventLog


class StandIn:
    """Claims jobs, writes their streams and finishes them."""

    def __init__(self, database: Database, event_log: EventLog) -> None:
        self.database, self.event_log = database, event_log
        self._sequence: dict[tuple[str, int], int] = {}

    def claim(self, job_id: str, model: str = "scripted") -> Job:
        """Claim jobs until it is this one."""
        while True:
            with self.database.write() as session:
                job = claim_next(session, model=model, worker_id="w1", lease_s=60)
            assert job is not None
            if job.id == job_id:
                return job

    def emit(self, job: Job, type_: str, data: dict[str, Any]) -> Event:
        """Append one event and announce it."""
        place = (job.id, job.attempt)
        self._sequence[place] = self._sequence.get(place, 0) + 1
        event = Event(EventId(job.attempt, self._sequence[place]), type_, data)
        self.event_log.append([(job.id, event)])
        return event

    def say(self, job: Job, *texts: str) -> list[Event]:
        return [self.emit(job, "delta", {"text": text}) for text in texts]

    def write_end(self, job: Job, text: str, status: JobStatus = JobStatus.COMPLETED) -> dict[str, Any]:
        """Write the row's end; returns the data of the status event, which is not sent."""
        with self.database.write() as session:
            change = finish(session, job.id, job.attempt, Outcome(status, output_text=text, finish_reason="stop"))
        assert change is not None
        return change.event_data

    def end(self, job: Job, text: str) -> Event:
        return self.emit(job, "status", self.write_end(job, text))

    def fail_for_now(self, job: Job) -> None:
        """End the attempt with an error that is worth another."""
        outcome = Outcome(JobStatus.FAILED, error={"code": "engine_error", "message": "once"})
        with self.database.write() as session:
            change = try_again(session, job.id, job.attempt, outcome, after_s=0, max_attempts=3)
        assert change is not None
        self.emit(job, "status", change.event_data)

    def run(self, job_id: str, *texts: str) -> list[Event]:
        """A whole job: claim, speak, end. Returns its events."""
        job = self.claim(job_id)
        return [*self.say(job, *texts), self.end(job, "".join(texts))]


def png(width: int = 1, height: int = 1, shade: int = 0) -> bytes:
    """A grey PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress((b"\x00" + bytes([shade]) * width) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


MP4 = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2" + b"\x00" * 64
