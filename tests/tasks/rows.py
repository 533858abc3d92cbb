"""Rows that the tests of the tasks start from, and a bounded wait for what they become."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sqlalchemy import select

from models.db import Database, utc_now
from models.delivery import Delivery, DeliveryAttempt
from models.job import Job, JobStatus
from models.outbox import enqueue_delivery
from vlmq.ids import new_job_id


def insert_job(database: Database, **values: Any) -> str:
    (job_id,) = insert_jobs(database, 1, **values)
    return job_id


def insert_jobs(database: Database, count: int, *, webhook_url: str | None = None, **values: Any) -> list[str]:
    now = utc_now()
    webhook = None if webhook_url is None else {"url": webhook_url, "events": ["job.completed", "job.expired"]}
    fields: dict[str, object] = {
        "tenant": "acme",
        "model": "scripted",
        "status": JobStatus.QUEUED,
        "request": {"messages": []},
        "user_metadata": {},
        "webhook": webhook,
        "created_at": now,
        "available_at": now,
        "start_deadline_at": now + timedelta(hours=1),
        "run_s": 60.0,
    }
    jobs = [Job(id=new_job_id(), **(fields | values)) for _ in range(count)]
    with database.write() as session:
        session.add_all(jobs)
    return [job.id for job in jobs]


def insert_deliveries(database: Database, url: str, count: int = 1) -> list[str]:
    """Completed jobs' deliveries, due now."""
    ids = []
    with database.write() as session:
        for _ in range(count):
            now = utc_now()
            job = Job(
                id=new_job_id(),
                tenant="acme",
                model="scripted",
                status=JobStatus.COMPLETED,
                request={"messages": []},
                user_metadata={"ticket": "Ä-17"},
                webhook={"url": url, "events": ["job.completed"]},
                priority=5,
                created_at=now,
                available_at=now,
                start_deadline_at=now,
                run_s=60.0,
                output_text="ein Würfel 🟩",
                timings={"total": 0.1 + 0.2},
                attempt=1,
                releases=0,
            )
            session.add(job)
            session.flush()
            ids.append(str(enqueue_delivery(session, job, "job.completed")))
    return ids


def get_job(database: Database, job_id: str) -> Job:
    with database.read() as session:
        return session.get_one(Job, job_id)


def get_delivery(database: Database, delivery_id: str) -> Delivery:
    with database.read() as session:
        return session.get_one(Delivery, delivery_id)


def deliveries(database: Database) -> list[Delivery]:
    with database.read() as session:
        return list(session.scalars(select(Delivery).order_by(Delivery.id)))


def attempts(database: Database, delivery_id: str) -> list[DeliveryAttempt]:
    with database.read() as session:
        mine = select(DeliveryAttempt).where(DeliveryAttempt.delivery_id == delivery_id)
        return list(session.scalars(mine.order_by(DeliveryAttempt.number)))


def eventually(condition: Callable[[], object], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.02)
