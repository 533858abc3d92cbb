"""Workers that have been heard of: which model each holds, in what state, and when it last gave a sign of life."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.db import Base, stored_enum, utc_now


class WorkerState(StrEnum):
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class Worker(Base):
    """One worker process, from its start to its clean end; one that vanished is known by an old `heartbeat_at`."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str | None] = mapped_column(index=True)  # None: a light worker
    state: Mapped[WorkerState] = mapped_column(stored_enum(WorkerState))
    hostname: Mapped[str]
    pid: Mapped[int]
    started_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime] = mapped_column(index=True)
    # What the engine says of itself: device, dtype, attention, revision, context length; or why loading failed.
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)


def heartbeat(session: Session, worker: Worker) -> None:
    """Write the worker's row as it is now, and forget those that have been silent for a day.

    A worker that is ready has outlived the failures of its model before it.
    """
    now = utc_now()
    worker.heartbeat_at = now
    session.merge(worker)
    session.execute(delete(Worker).where(Worker.heartbeat_at < now - timedelta(days=1)))
    if worker.state is WorkerState.READY and worker.model is not None:
        failed = (Worker.model == worker.model) & (Worker.state == WorkerState.FAILED)
        session.execute(delete(Worker).where(failed, Worker.started_at < worker.started_at))


def leave(session: Session, worker_id: str) -> None:
    session.execute(delete(Worker).where(Worker.id == worker_id))


def live_workers(session: Session, *, silence_s: float) -> list[Worker]:
    """Workers heard of within `silence_s`, newest first."""
    recent = Worker.heartbeat_at >= utc_now() - timedelta(seconds=silence_s)
    return list(session.scalars(select(Worker).where(recent).order_by(Worker.id.desc())))


def failed_workers(session: Session) -> list[Worker]:
    """The last words of workers that could not load their model and are gone, newest first."""
    failed = Worker.state == WorkerState.FAILED
    return list(session.scalars(select(Worker).where(failed).order_by(Worker.heartbeat_at.desc())))
