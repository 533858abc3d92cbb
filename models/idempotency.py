"""Idempotency keys: the same key and body make one thing, however often they are sent."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from models.db import Base


class IdempotencyKey(Base):
    """A key that a tenant used, committed together with what it made, so it is never seen half done."""

    __tablename__ = "idempotency_keys"

    tenant: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    body_sha256: Mapped[str]
    resource_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(index=True)
