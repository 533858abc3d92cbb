"""Webhook messages on their way: a row before it is a request."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column, relationship

from models.db import Base, partial_index, stored_enum


class DeliveryStatus(StrEnum):
    """`pending -> sending -> delivered | dead`, back to `pending` for the next try."""

    PENDING = "pending"
    SENDING = "sending"
    DELIVERED = "delivered"
    DEAD = "dead"


class Delivery(Base):
    """One message for one URL; its id stays the same over all tries. Status changes in models/outbox.py only."""

    __tablename__ = "deliveries"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    event: Mapped[str]
    url: Mapped[str]
    host: Mapped[str]  # scheme, host and port: tries to one receiver are limited together
    payload: Mapped[dict[str, Any]]
    status: Mapped[DeliveryStatus] = mapped_column(stored_enum(DeliveryStatus), default=DeliveryStatus.PENDING)
    created_at: Mapped[datetime]
    due_at: Mapped[datetime]
    # `claim` fences the writes of a sender that was taken for dead, as `attempt` does for jobs.
    claim: Mapped[int] = mapped_column(default=0)
    lease_expires_at: Mapped[datetime | None]
    tries: Mapped[int] = mapped_column(default=0)
    delivered_at: Mapped[datetime | None]

    attempts: Mapped[list["DeliveryAttempt"]] = relationship(
        order_by="DeliveryAttempt.number", cascade="all, delete-orphan", passive_deletes=True
    )

    __table_args__ = (
        partial_index("ix_deliveries_due", "due_at", where="status = 'pending'"),
        partial_index("ix_deliveries_sending", "host", where="status = 'sending'"),
        Index("ix_deliveries_tenant", "tenant", "id"),
    )


class DeliveryAttempt(Base):
    """One try: what the receiver answered, or why there was no answer."""

    __tablename__ = "delivery_attempts"

    delivery_id: Mapped[str] = mapped_column(ForeignKey("deliveries.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    started_at: Mapped[datetime]
    duration_s: Mapped[float]
    status_code: Mapped[int | None]
    error: Mapped[str | None]
    response_excerpt: Mapped[str | None]
