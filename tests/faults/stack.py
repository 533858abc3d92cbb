"""A whole stack of real processes, whose parts the fault tests kill, and the ledger of what must come out of it."""

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from models.db import Database
from models.delivery import Delivery, DeliveryStatus
from models.job import Job, JobStatus
from tests.processes import API, GPU_WORKER, LIGHT_WORKER, Part, until
from tests.tasks.receiver import Receiver, receiving
from vlmq.client import Client
from vlmq.config import Settings
from vlmq.signing import tenant_secrets

FINAL_EVENTS = ["job.completed", "job.failed", "job.cancelled", "job.expired"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Stack:
    settings: Settings
    database: Database
    api: Part
    gpu: Part
    light: Part
    receiver: Receiver

    @property
    def url(self) -> str:
        return f"http://{self.settings.host}:{self.settings.port}"

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.api, self.gpu, self.light

    def submit(self, count: int, script: dict[str, Any], *, prefix: str = "fault", threads: int = 8) -> list[str]:
        """POST that many jobs through HTTP, each with a webhook and an idempotency key."""
        local = threading.local()

        def one(number: int) -> str:
            if not hasattr(local, "client"):
                local.client = Client(self.url)
            job = local.client.submit(
                [{"role": "user", "content": json.dumps(script | {"text": f"job {number} says"})}],
                model="scripted",
                generation={"max_new_tokens": 8000},
                webhook={"url": self.receiver.url, "events": FINAL_EVENTS},
                idempotency_key=f"{prefix}-{number}",
            )
            return str(job.id)

        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(one, range(count)))

    def finished(self) -> int:
        final = [status for status in JobStatus if status.is_final]
        with self.database.read() as session:
            return session.scalar(select(func.count()).where(Job.status.in_(final))) or 0

    def undelivered(self) -> int:
        with self.database.read() as session:
            return session.scalar(select(func.count()).where(Delivery.status != DeliveryStatus.DELIVERED)) or 0

    def check(self, ids: list[str], tokens: int) -> None:
        """Every job completed once, with a gapless stream that equals its text, and one webhook that arrived."""
        until(lambda: self.finished() == len(ids), 180, what="the end of all jobs")
        until(lambda: self.undelivered() == 0, 60, what="the delivery of all webhooks")
        client = Client(self.url)
        secret = tenant_secrets(self.settings, "default")[0]
        said: dict[str, dict[str, Any]] = {}
        for request in list(self.receiver.requests):
            message = request.verified(secret)
            said.setdefault(message["data"]["id"], {})[request.id] = message
        with self.database.read() as session:
            jobs = {job.id: job for job in session.scalars(select(Job))}
        assert sorted(jobs) == sorted(ids)
        for job_id, job in jobs.items():
            assert job.status == JobStatus.COMPLETED, (job.error, job.attempts)
            assert job.output_text is not None
            assert len(job.output_text.split(" ")) == tokens
            # Over HTTP: the final event of a worker that was killed right after its commit comes from the row.
            # What took the job from an earlier attempt stands at place 0.
            events = [event for event in client.events(job_id) if event.attempt == job.attempt and event.seq]
            assert [event.seq for event in events] == list(range(1, len(events) + 1)), "the stream has a gap"
            assert [event.is_final for event in events] == [False] * (len(events) - 1) + [True]
            text = "".join(event.data["text"] for event in events if event.type == "delta")
            assert text == job.output_text
            assert len(said[job_id]) == 1, "a webhook must keep its id"
            (message,) = said[job_id].values()
            assert message["type"] == "job.completed"
            assert message["data"]["output_text"] == job.output_text


@contextmanager
def running_stack(settings: Settings, database: Database, folder: Path) -> Iterator[Stack]:
    api = Part("api", API, settings, folder)
    gpu = Part("gpu worker", GPU_WORKER.format("scripted"), settings, folder)
    light = Part("light worker", LIGHT_WORKER, settings, folder)
    with receiving() as receiver:
        stack = Stack(settings, database, api, gpu, light, receiver)
        try:
            for part in stack.parts:
                part.start()
            until(Client(stack.url).ready, 60, what="a ready stack")
            yield stack
        finally:
            for part in stack.parts:
                part.kill()
