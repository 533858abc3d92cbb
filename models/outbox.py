"""The life of a webhook delivery: every change of its status, each a guarded update."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import ColumnElement, CursorResult, func, or_, select, update
from sqlalchemy.orm import Session

from models.db import utc_now
from models.delivery import Delivery, DeliveryAttempt, DeliveryStatus
from models.job import Job
from models.job_view import job_view, timestamp
from vlmq.ids import new_delivery_id


@dataclass(frozen=True, slots=True)
class Answer:
    """What one try brought: the receiver's status and the beginning of its answer, or why there was none."""

    started_at: datetime
    duration_s: float
    status_code: int | None = None
    error: str | None = None
    response_excerpt: str | None = None

    @property
    def accepted(self) -> bool:
        return self.status_code is not None and 200 <= self.status_code < 300

    @property
    def gone(self) -> bool:
        """410: the receiver wants no more tries (Standard Webhooks)."""
        return self.status_code == 410


def enqueue_delivery(session: Session, job: Job, event: str, data: dict[str, Any] | None = None) -> str | None:
    """Put a message on its way if the job's webhook subscribes to `event`; returns its id.

    `data` is the job's view unless given.
    """
    webhook = job.webhook
    if webhook is None or event not in webhook["events"]:
        return None
    now = utc_now()
    parts = urlsplit(webhook["url"])
    delivery = Delivery(
        id=new_delivery_id(),
        tenant=job.tenant,
        job_id=job.id,
        event=event,
        url=webhook["url"],
        host=f"{parts.scheme}://{parts.netloc}".lower(),
        payload={"type": event, "timestamp": timestamp(now), "data": job_view(job) if data is None else data},
        created_at=now,
        due_at=now,
    )
    session.add(delivery)
    session.flush()
    return delivery.id


def claim_due(session: Session, *, lease_s: float, max_in_flight_per_host: int) -> Delivery | None:
    """Take the delivery that is longest due and whose receiver is not already busy with as many as it may have.

    The limit is approximate: claims that run at the same time do not see each other, so a receiver may get one more
    for each other process that claims at that moment. (On SQLite claims follow one another, and it is exact.)
    """
    now = utc_now()
    next_id = (
        select(Delivery.id)
        .where(*_claimable(now, max_in_flight_per_host))
        .order_by(Delivery.due_at, Delivery.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    return _update(
        session,
        Delivery.id == next_id,
        status=DeliveryStatus.SENDING,
        claim=Delivery.claim + 1,
        lease_expires_at=now + timedelta(seconds=lease_s),
    )


def record_answer(session: Session, delivery: Delivery, answer: Answer, *, retry_after_s: Sequence[float]) -> bool:
    """Note a try and what follows: delivered, due again by the schedule, or dead. False when the claim was lost."""
    tries = delivery.tries + 1
    values: dict[str, Any] = {"tries": tries, "lease_expires_at": None}
    if answer.accepted:
        values |= {"status": DeliveryStatus.DELIVERED, "delivered_at": utc_now()}
    elif answer.gone or tries > len(retry_after_s):
        values |= {"status": DeliveryStatus.DEAD}
    else:
        # Spread, so that what failed together does not come back together.
        due_at = utc_now() + timedelta(seconds=retry_after_s[tries - 1] * random.uniform(0.9, 1.1))
        values |= {"status": DeliveryStatus.PENDING, "due_at": due_at}
    guard = Delivery.status == DeliveryStatus.SENDING, Delivery.claim == delivery.claim
    if _update(session, Delivery.id == delivery.id, *guard, **values) is None:
        return False
    session.add(
        DeliveryAttempt(
            delivery_id=delivery.id,
            number=tries,
            started_at=answer.started_at,
            duration_s=answer.duration_s,
            status_code=answer.status_code,
            error=answer.error,
            response_excerpt=answer.response_excerpt,
        )
    )
    return True


def redeliver(session: Session, delivery: Delivery) -> bool:
    """Make a delivery due now, whatever became of it before; its id stays. False while it is being sent."""
    redelivered = _update(
        session,
        Delivery.id == delivery.id,
        Delivery.status != DeliveryStatus.SENDING,
        status=DeliveryStatus.PENDING,
        due_at=utc_now(),
    )
    return redelivered is not None


def take_back_expired_sends(session: Session) -> int:
    """Make due again what a dead sender held; it may have arrived already, hence "at least once"."""
    result = session.execute(
        update(Delivery)
        .where(
            Delivery.status == DeliveryStatus.SENDING,
            or_(Delivery.lease_expires_at.is_(None), Delivery.lease_expires_at <= utc_now()),
        )
        .values(status=DeliveryStatus.PENDING, lease_expires_at=None)
        .execution_options(synchronize_session=False)
    )
    return result.rowcount if isinstance(result, CursorResult) else 0


def count_due(session: Session, *, max_in_flight_per_host: int) -> int:
    """How many deliveries a sender could claim now."""
    due = select(func.count()).select_from(Delivery).where(*_claimable(utc_now(), max_in_flight_per_host))
    return session.scalar(due) or 0


def _claimable(now: datetime, max_in_flight_per_host: int) -> tuple[ColumnElement[bool], ...]:
    busy_hosts = (
        select(Delivery.host)
        .where(Delivery.status == DeliveryStatus.SENDING)
        .group_by(Delivery.host)
        .having(func.count() >= max_in_flight_per_host)
    )
    return Delivery.status == DeliveryStatus.PENDING, Delivery.due_at <= now, Delivery.host.not_in(busy_hosts)


def _update(session: Session, *where: ColumnElement[bool], **values: Any) -> Delivery | None:
    """Change the one delivery that all of `where` holds for; the delivery as it is now, or None."""
    return session.scalars(
        update(Delivery).where(*where).values(**values).returning(Delivery),
        execution_options={"synchronize_session": False, "populate_existing": True},
    ).one_or_none()
