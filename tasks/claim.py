"""Taking the next job out of the queue: one thread at a time, and a job that has lost a worker only alone."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import structlog

from models.claims import claim_next, next_runs_alone
from models.db import DATABASE_ERRORS, Database
from models.outbox import enqueue_delivery
from tasks.attempt import Attempt
from tasks.held_jobs import HeldJobs

log = structlog.get_logger(__name__)

# How often a worker that makes room for a job which must run alone looks whether another has taken that.
MAKE_ROOM_S = 0.5


@dataclass(frozen=True, slots=True)
class Claimed:
    """A job of ours, and the delivery that says so if its webhook wants to hear it."""

    attempt: Attempt
    delivery_id: str | None


@dataclass
class Claims:
    """What one worker claims; `next` is called from many threads."""

    model: str
    worker_id: str
    lease_s: float
    database: Database
    held: HeldJobs
    # Held by the thread that claims, and on through a job that runs alone: so nothing begins beside it.
    _turn: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def next(self, *, renders_only: bool) -> Iterator[Claimed | None]:
        """The job that is next, held until the block ends; None when there is none, or the worker drains.

        If that is one that must run alone, it is waited for until nothing else runs here or another worker took it.
        """
        with ExitStack() as turn:
            turn.enter_context(self._turn)
            with self.held.at_work():
                claimed = self._claim(renders_only=renders_only)
                if claimed is None:
                    yield None
                    return
                self.held.add(claimed.attempt)
                if not claimed.attempt.job.runs_alone:
                    turn.close()
                try:
                    yield claimed
                finally:
                    self.held.remove(claimed.attempt)

    def _claim(self, *, renders_only: bool) -> Claimed | None:
        while not self.held.closed:
            alone = not self.held.all()
            try:
                with self.database.write() as session:
                    job = claim_next(
                        session,
                        model=self.model,
                        worker_id=self.worker_id,
                        lease_s=self.lease_s,
                        alone=alone,
                        renders_only=renders_only,
                    )
                    delivery_id = None if job is None else enqueue_delivery(session, job, "job.started")
                    may_wait = job is None and not alone and not renders_only
                    makes_room = may_wait and next_runs_alone(session, model=self.model)
            except DATABASE_ERRORS as error:
                log.warning("could not claim a job; the reconciler will ring again", error=str(error))
                return None
            if job is not None:
                attempt = Attempt(job, deadline=time.monotonic() + job.run_s)
                attempt.record("status", job.status_data())
                return Claimed(attempt, delivery_id)
            if not makes_room:
                return None
            self.held.wait_for_an_end(MAKE_ROOM_S)
        return None
