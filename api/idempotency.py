"""Requests that are sent again under the same Idempotency-Key, and what the first of them made."""

import hashlib
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy.orm import Session

from api.services import Services
from models.db import utc_now
from models.idempotency import IdempotencyKey
from models.job import Job
from models.template import Template
from vlmq.errors import ErrorCode, VlmqError

Made = TypeVar("Made", Job, Template)


@dataclass(frozen=True, slots=True)
class Once:
    """An Idempotency-Key and the hash of the body that it came with."""

    key: str
    body_sha256: str


def once_for(key: str | None, body: bytes) -> Once | None:
    return None if key is None else Once(key, hashlib.sha256(body).hexdigest())


def replay(services: Services, tenant: str, once: Once | None, kind: type[Made]) -> Made | None:
    """The job or template that this key has made, if there is a key and it has made one.

    Raises:
        VlmqError: IDEMPOTENCY_MISMATCH for another body; CONFLICT when what it made was deleted since.
    """
    if once is None:
        return None
    with services.database.read() as session:
        used = session.get(IdempotencyKey, (tenant, once.key))
        if used is None:
            return None
        if used.body_sha256 != once.body_sha256:
            message = "This Idempotency-Key was used with another body; take a new key for a new request."
            raise VlmqError(ErrorCode.IDEMPOTENCY_MISMATCH, message, param="Idempotency-Key")
        made = session.get(kind, used.resource_id)
        if made is None:
            noun = kind.__name__.lower()
            message = f"The {noun} that this Idempotency-Key made was deleted; take a new key to make another."
            raise VlmqError(ErrorCode.CONFLICT, message, param="Idempotency-Key")
        return made


def remember(session: Session, tenant: str, once: Once | None, made: Job | Template) -> None:
    """Keep the key with what it made, in the same transaction; an IntegrityError says that another was quicker."""
    if once is not None:
        row = IdempotencyKey(
            tenant=tenant, key=once.key, body_sha256=once.body_sha256, resource_id=made.id, created_at=utc_now()
        )
        session.add(row)
