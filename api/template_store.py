"""Templates into the database and out of it again."""

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api.idempotency import Once, remember, replay
from api.job_store import TRIES
from api.schemas.templates import TemplateRef, TemplateRequest
from api.services import Services
from models.db import utc_now
from models.template import Template
from vlmq.errors import ErrorCode, VlmqError
from vlmq.ids import new_template_id


def find_template(
    session: Session, tenant: str, ref: TemplateRef, *, kind: str | None = None, param: str | None = None
) -> Template:
    """The version that `ref` names, or the newest.

    Raises:
        VlmqError: NOT_FOUND, which with a `param` is about a field of the request; INVALID_REQUEST for another kind.
    """
    rows = select(Template).where(Template.tenant == tenant, Template.name == ref.name)
    if ref.version is not None:
        rows = rows.where(Template.version == ref.version)
    template = session.scalars(rows.order_by(Template.version.desc()).limit(1)).one_or_none()
    if template is None:
        words = "of this name" if ref.version is None else "of this name and version"
        message = f"There is no template {words}; GET /v1/templates lists those that there are."
        raise VlmqError(ErrorCode.NOT_FOUND, message, param=param, status=422 if param else None)
    if kind is not None and template.content["kind"] != kind:
        message = f"The template {ref.name} is of the kind {template.content['kind']}; this takes the kind {kind}."
        raise VlmqError(ErrorCode.INVALID_REQUEST, message, param=param)
    return template


def store_template(
    services: Services, tenant: str, body: TemplateRequest, once: Once | None, *, tries: int = TRIES
) -> tuple[Template, bool]:
    """Insert the next version of its name. Says whether the key made it before.

    Raises:
        VlmqError: what `replay` raises.
    """
    try:
        with services.database.write() as session:
            return _insert(session, tenant, body.name, body.stored(), once), False
    except IntegrityError:
        # Another request took the key.
        if (made := replay(services, tenant, once, Template)) is not None:
            return made, True
        if tries == 1:
            raise
    return store_template(services, tenant, body, once, tries=tries - 1)


def _insert(session: Session, tenant: str, name: str, content: dict[str, Any], once: Once | None) -> Template:
    _lock_name(session, f"{tenant}/{name}")
    mine = (Template.tenant == tenant, Template.name == name)
    newest = session.scalar(select(func.max(Template.version)).where(*mine)) or 0
    template = Template(
        id=new_template_id(), tenant=tenant, name=name, version=newest + 1, content=content, created_at=utc_now()
    )
    session.add(template)
    remember(session, tenant, once, template)
    session.flush()
    return template


def _lock_name(session: Session, name: str) -> None:
    """Until the transaction ends, nobody else counts versions of this name. SQLite has one writer at a time anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name, 1))))
