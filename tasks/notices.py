"""What a running job tells the outside beside its stream: webhooks on the way, and the doorbells of what it sets going.

Nothing here may fail a job: what does not get through is made up for by the reconciler, or is only progress.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from models.announcements import WIRE_ERRORS, ring_for
from models.db import DATABASE_ERRORS, Database
from models.lifecycle import Change, is_held
from models.outbox import enqueue_delivery
from tasks.attempt import Attempt
from vlmq.doorbell import Doorbell

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Notices:
    """Called from the threads of all jobs."""

    database: Database
    doorbell: Doorbell

    def tell(self, attempt: Attempt, event: str, data: dict[str, Any]) -> None:
        """Send `data` to the job's webhook if it subscribes to `event` and the attempt still holds the job."""
        if not attempt.wants(event):
            return
        body = {"id": attempt.job.id, "object": event, "attempt": attempt.number, **data}
        try:
            with self.database.write() as session:
                if not is_held(session, attempt.job.id, attempt.number):
                    return
                delivery_id = enqueue_delivery(session, attempt.job, event, body)
        except DATABASE_ERRORS as error:
            log.warning("could not queue a webhook about progress", error=str(error))
            return
        self.ring_delivery(delivery_id)

    def ring_delivery(self, delivery_id: str | None) -> None:
        if delivery_id is not None:
            self._try(lambda: self.doorbell.ring_delivery(delivery_id))

    def ring_for(self, change: Change) -> None:
        self._try(lambda: ring_for(change, self.doorbell))

    def _try(self, ring: Callable[[], None]) -> None:
        try:
            ring()
        except WIRE_ERRORS as error:
            log.warning("could not ring; the reconciler will", error=str(error))
