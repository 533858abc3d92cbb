"""The story of one webhook delivery: claim the row, sign it, send it, write down the answer.

A delivery arrives at least once, always with the same id (`webhook-id`) and the same body, so a receiver can tell a
repetition. Deliveries are taken in the order in which they fell due, but several are under way at once and a failed
one comes again later: `job.completed` may overtake `job.started`. Receivers order events by `timestamp`.
"""

import json
import threading
import time
from dataclasses import dataclass, field

import structlog
from sqlalchemy.exc import SQLAlchemyError

from models.db import Database, utc_now
from models.delivery import Delivery
from models.outbox import Answer, claim_due, record_answer
from vlmq.config import Settings
from vlmq.errors import VlmqError
from vlmq.outbound import OutboundError, Posted, post
from vlmq.signing import signed_headers, tenant_secrets

log = structlog.get_logger(__name__)


@dataclass
class WebhookSender:
    """What one light worker needs to deliver webhooks; `deliver_due` is called from many threads."""

    settings: Settings
    database: Database
    stopping: threading.Event = field(default_factory=threading.Event)
    # A worker's claims follow one another: concurrent ones do not see each other, and would together exceed what a
    # slow receiver may have in flight.
    _claiming: threading.Lock = field(default_factory=threading.Lock)

    def deliver_due(self) -> int:
        """Deliver one after the other until nothing is due; how many tries were made.

        Going on without a further doorbell matters where rings are few: after a lost one, and for the deliveries of a
        receiver that was busy when theirs was heard.
        """
        tries = 0
        while not self.stopping.is_set() and (delivery := self._claim()) is not None:
            self._record(delivery, self._send(delivery))
            tries += 1
        return tries

    def _claim(self) -> Delivery | None:
        webhooks, timing = self.settings.webhooks, self.settings.timing
        try:
            with self._claiming, self.database.write() as session:
                return claim_due(
                    session,
                    # A name that is slow to resolve may take longer than the timeout allows.
                    lease_s=webhooks.timeout_s + timing.lease_s,
                    max_in_flight_per_host=webhooks.max_in_flight_per_host,
                )
        except SQLAlchemyError as error:
            log.warning("could not claim a delivery; the reconciler will ring again", error=str(error))
            return None

    def _send(self, delivery: Delivery) -> Answer:
        started_at, clock = utc_now(), time.monotonic()
        posted: Posted | None = None
        error: str | None = None
        try:
            posted = self._post(delivery)
            if 300 <= posted.status < 400:
                error = "redirect refused"
        except (VlmqError, OutboundError) as failure:
            error = str(failure)
        except Exception:
            # It counts as a try: otherwise a message that cannot be sent would be tried for ever.
            log.exception("a delivery could not be sent", delivery=delivery.id)
            error = "internal error"
        return Answer(
            started_at=started_at,
            duration_s=time.monotonic() - clock,
            status_code=None if posted is None else posted.status,
            error=error,
            # PostgreSQL takes no NUL in text.
            response_excerpt=None if posted is None else posted.excerpt.replace("\x00", "\ufffd"),
        )

    def _post(self, delivery: Delivery) -> Posted:
        body = json.dumps(delivery.payload, ensure_ascii=False, separators=(",", ":")).encode()
        secrets = tenant_secrets(self.settings, delivery.tenant)
        return post(
            delivery.url,
            body=body,
            headers=signed_headers(secrets, delivery.id, utc_now(), body),
            timeout_s=self.settings.webhooks.timeout_s,
            max_response_bytes=self.settings.webhooks.max_response_bytes,
            allow_private=self.settings.dev_allow_private_urls,
        )

    def _record(self, delivery: Delivery, answer: Answer) -> None:
        entry = log.bind(delivery=delivery.id, event_type=delivery.event, status=answer.status_code)
        try:
            with self.database.write() as session:
                held = record_answer(session, delivery, answer, retry_after_s=self.settings.webhooks.retry_after_s)
        except SQLAlchemyError as error:
            entry.warning("could not record an answer; the delivery will be repeated", error=str(error))
            return
        if not held:
            entry.warning("a delivery took longer than its lease; whoever has it now decides")
        elif answer.accepted:
            entry.info("a webhook was delivered")
        else:
            entry.info("a webhook was not accepted", error=answer.error)
