"""Puts right what faults left behind: overdue jobs, expired leases, lost doorbells, old idempotency keys.

Every light worker carries a reconciler. One of them leads, which spares the database; when Redis cannot say who leads,
all do the work, which every statement of it allows.
"""

from collections.abc import Callable
from datetime import timedelta

import redis
import structlog
from sqlalchemy import delete
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from models.announcements import WIRE_ERRORS, announce
from models.claims import claimable_jobs
from models.db import Database, utc_now
from models.idempotency import IdempotencyKey
from models.lifecycle import Change, expire_overdue, take_back_expired_leases
from models.outbox import count_due, take_back_expired_sends
from models.rendering import delete_forgotten_renders
from vlmq.config import Settings
from vlmq.doorbell import ANY, LIGHT_QUEUE, Doorbell, gpu_queue
from vlmq.events import REDIS_ERRORS, EventLog
from vlmq.files import FileStore

log = structlog.get_logger(__name__)

LEADER_KEY = "vlmq:reconciler"
MAX_RINGS = 200
BATCH = 100
MAX_BATCHES = 20
IDEMPOTENCY_TTL = timedelta(hours=24)
# A rendered prompt is deleted by the request that waits for it; this is for requests whose process died.
RENDER_GRACE_S = 30.0


class Reconciler:
    """One light worker's reconciler; `run_pass` is called by one thread."""

    def __init__(
        self, settings: Settings, database: Database, client: redis.Redis, doorbell: Doorbell, *, name: str
    ) -> None:
        self._settings = settings
        self._database = database
        self._redis = client
        self._doorbell = doorbell
        self._name = name
        self._files = FileStore(settings.files_dir)
        self._event_log = EventLog(client, final_ttl_s=settings.timing.stream_ttl_s)
        # By queue: how many doorbells the last pass found missing.
        self._missing: dict[str, int] = {}

    def run_pass(self) -> None:
        """One pass, unless another reconciler leads. A database or Redis that is away is left to the next pass."""
        try:
            if not self._leads():
                self._missing = {}
                return
            redis_is_here = True
        except REDIS_ERRORS as error:
            log.warning("Redis is away; reconciling the database alone", error=str(error))
            redis_is_here = False
        try:
            self._reconcile_database()
            if redis_is_here:
                self._ring_what_is_missing()
        except SQLAlchemyError as error:
            log.warning("the database is away; reconciling later", error=str(error))
        except WIRE_ERRORS as error:
            log.warning("Redis went away; ringing later", error=str(error))

    def resign(self) -> None:
        """Let another reconciler lead at once."""
        try:
            if self._redis.get(LEADER_KEY) == self._name:
                self._redis.delete(LEADER_KEY)
        except REDIS_ERRORS as error:
            log.warning("could not resign; another will lead shortly", error=str(error))

    def _leads(self) -> bool:
        # Two that lead for a moment do no harm, so the read and the renewal need not be one step.
        term_ms = int(3000 * self._settings.timing.reconcile_s)
        if self._redis.set(LEADER_KEY, self._name, nx=True, px=term_ms):
            return True
        if self._redis.get(LEADER_KEY) != self._name:
            return False
        self._redis.pexpire(LEADER_KEY, term_ms)
        return True

    def _reconcile_database(self) -> None:
        max_attempts = self._settings.max_attempts
        changes: list[Change] = []
        try:
            self._in_batches(changes, lambda session: expire_overdue(session, limit=BATCH))
            self._in_batches(
                changes, lambda session: take_back_expired_leases(session, max_attempts=max_attempts, limit=BATCH)
            )
            with self._database.write() as session:
                sends = take_back_expired_sends(session)
                forgotten_after_s = self._settings.timing.max_wait_s + RENDER_GRACE_S
                delete_forgotten_renders(session, self._files, older_than_s=forgotten_after_s)
                session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < utc_now() - IDEMPOTENCY_TTL))
            if sends:
                log.info("took back deliveries of a sender that vanished", count=sends)
        finally:
            announce(changes, self._event_log, self._doorbell)

    def _in_batches(self, changes: list[Change], step: Callable[[Session], list[Change]]) -> None:
        for _ in range(MAX_BATCHES):
            with self._database.write() as session:
                batch = step(session)
            changes += batch
            for change in batch:
                log.info("put a job right", job=change.job_id, status=change.status.value)
            if len(batch) < BATCH:
                return

    def _ring_what_is_missing(self) -> None:
        """Ring for what waits without a ring in its queue.

        A ring that a worker has just taken and not yet acted on looks as if it were missing, so one counts as lost
        only when two passes in a row missed it; after ringing, the count begins anew.
        """
        with self._database.read() as session:
            jobs = claimable_jobs(session)
            due = count_due(session, max_in_flight_per_host=self._settings.webhooks.max_in_flight_per_host)
        before, self._missing = self._missing, {}
        for model, waiting in jobs.items():
            for _ in range(self._lost(gpu_queue(model), waiting, before)):
                self._doorbell.ring_job(model, ANY)
        for _ in range(self._lost(LIGHT_QUEUE, due, before)):
            self._doorbell.ring_delivery(ANY)

    def _lost(self, queue: str, waiting: int, before: dict[str, int]) -> int:
        missing = max(0, waiting - int(self._redis.llen(queue)))
        lost = min(missing, before.get(queue, 0), MAX_RINGS)
        if lost:
            log.info("ringing again", queue=queue, waiting=waiting, rings=lost)
        else:
            self._missing[queue] = missing
        return lost
