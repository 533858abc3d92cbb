"""Tell the wire what the database has decided: the job's stream, and the doorbells."""

from collections.abc import Iterable

import structlog
from kombu.exceptions import OperationalError

from models.lifecycle import Change
from vlmq.doorbell import Doorbell
from vlmq.events import REDIS_ERRORS, EventLog

log = structlog.get_logger(__name__)

WIRE_ERRORS = (*REDIS_ERRORS, OperationalError)


def announce(changes: Iterable[Change], event_log: EventLog, doorbell: Doorbell) -> None:
    """Append a status event for each change and ring for what it sets going.

    To be called after the commit. What fails to get through is made up for: readers look into the database when a
    stream is silent, and the reconciler rings for whatever waits.
    """
    for change in changes:
        try:
            event_log.append_after(change.job_id, change.attempt, change.event_data)
            ring_for(change, doorbell)
        except WIRE_ERRORS as error:
            # The others would wait for the same timeouts one by one.
            log.warning("could not announce changes, this one first", job=change.job_id, error=str(error))
            return


def ring_for(change: Change, doorbell: Doorbell) -> None:
    if not change.status.is_final:
        doorbell.ring_job(change.model, change.job_id)
    elif change.delivery_id is not None:
        doorbell.ring_delivery(change.delivery_id)
