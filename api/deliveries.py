"""`/v1/deliveries`: what became of each webhook message; `/v1/webhook_secret`: the key that signs them."""

from typing import Any

from flask import Response, jsonify
from flask_openapi.blueprint import APIBlueprint
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from api.auth import current_tenant
from api.documentation import BEARER, WEBHOOKS, problems
from api.paging import PageQuery, as_list, page
from api.schemas.answers import DeliveryAnswer, DeliveryPage, SecretAnswer
from api.services import services
from models.delivery import Delivery, DeliveryAttempt, DeliveryStatus
from models.job_view import timestamp
from models.outbox import redeliver
from vlmq.errors import ErrorCode, VlmqError
from vlmq.signing import tenant_secrets

blueprint = APIBlueprint("deliveries", __name__, url_prefix="/v1", abp_tags=[WEBHOOKS], abp_security=BEARER)


class DeliveryPath(BaseModel):
    delivery_id: str = Field(description="whd_…")


class DeliveriesQuery(PageQuery):
    job_id: str | None = None
    status: DeliveryStatus | None = None


@blueprint.get("/deliveries", summary="List webhook deliveries", responses={200: DeliveryPage, **problems(400, 422)})
def list_deliveries(query: DeliveriesQuery) -> dict[str, Any]:
    """Newest first, without their payloads."""
    rows = select(Delivery).where(Delivery.tenant == current_tenant()).options(defer(Delivery.payload))
    if query.job_id is not None:
        rows = rows.where(Delivery.job_id == query.job_id)
    if query.status is not None:
        rows = rows.where(Delivery.status == query.status)
    with services().database.read() as session:
        found, has_more = page(session, rows, Delivery.id, query, "whd")
    return as_list([_view(delivery) for delivery in found], has_more=has_more)


@blueprint.get(
    "/deliveries/<delivery_id>", summary="Look at a delivery", responses={200: DeliveryAnswer, **problems(404)}
)
def get_delivery(path: DeliveryPath) -> dict[str, Any]:
    """With its payload and every try."""
    with services().database.read() as session:
        return _whole_view(_find(session, path.delivery_id))


@blueprint.post(
    "/deliveries/<delivery_id>/redeliver",
    summary="Send a delivery again",
    responses={202: DeliveryAnswer, **problems(404, 409)},
)
def redeliver_delivery(path: DeliveryPath) -> Response:
    """Due now, whatever became of it before. Its id stays, so that the receiver can tell."""
    service = services()
    with service.database.write() as session:
        delivery = _find(session, path.delivery_id)
        if not redeliver(session, delivery):
            raise VlmqError(ErrorCode.CONFLICT, "This delivery is being sent right now; look again in a moment.")
        session.refresh(delivery)
        view = _whole_view(delivery)
    service.announcer.ring_delivery(path.delivery_id)
    response = jsonify(view)
    response.status_code = 202
    return response


@blueprint.get("/webhook_secret", summary="Get your webhook secret", responses={200: SecretAnswer, **problems(409)})
def get_webhook_secret() -> dict[str, str]:
    """Verifies the Standard Webhooks signature of what this service sends you."""
    settings = services().settings
    if settings.webhooks.secret is None:
        message = "This service sends no webhooks: it has no signing secret (VLMQ_WEBHOOKS__SECRET)."
        raise VlmqError(ErrorCode.CONFLICT, message)
    return {"secret": tenant_secrets(settings, current_tenant())[0]}


def _find(session: Session, delivery_id: str) -> Delivery:
    rows = select(Delivery).where(Delivery.id == delivery_id, Delivery.tenant == current_tenant())
    delivery = session.scalar(rows) if "\x00" not in delivery_id else None
    if delivery is None:
        raise VlmqError(ErrorCode.NOT_FOUND, "There is no delivery with this id.")
    return delivery


def _view(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "object": "delivery",
        "job_id": delivery.job_id,
        "event": delivery.event,
        "url": delivery.url,
        "status": delivery.status.value,
        "tries": delivery.tries,
        "created_at": timestamp(delivery.created_at),
        "due_at": timestamp(delivery.due_at),
        "delivered_at": timestamp(delivery.delivered_at),
    }


def _whole_view(delivery: Delivery) -> dict[str, Any]:
    attempts = [_attempt_view(attempt) for attempt in delivery.attempts]
    return _view(delivery) | {"payload": delivery.payload, "attempts": attempts}


def _attempt_view(attempt: DeliveryAttempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "started_at": timestamp(attempt.started_at),
        "duration_s": attempt.duration_s,
        "status_code": attempt.status_code,
        "error": attempt.error,
        "response_excerpt": attempt.response_excerpt,
    }
