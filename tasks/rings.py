"""What a GPU worker makes of a ring: it runs what waits, or lets a worker that has room hear it."""

import time
from dataclasses import dataclass

import structlog

from models.announcements import WIRE_ERRORS
from models.claims import claimable_jobs, running_jobs
from models.db import DATABASE_ERRORS, Database
from models.worker import WorkerState, live_workers
from tasks.held_jobs import HeldJobs
from tasks.run_job import JobRunner
from vlmq.doorbell import ANY, Doorbell

log = structlog.get_logger(__name__)

# A worker with room that does not answer, as a stopped one, must not keep a ring going for long.
MOST_PASSES = 20
PASS_PAUSE_S = 0.01


@dataclass(frozen=True, slots=True)
class Rings:
    """`answer` is called from many threads."""

    model: str
    lease_s: float
    runner: JobRunner
    held: HeldJobs
    database: Database
    doorbell: Doorbell

    def answer(self, job_id: str, passed_on: int = 0) -> None:
        """Run jobs while there are any, so that a lost ring costs nothing on a busy worker. Without room, pass it on.

        A queue hands its rings to full and idle workers alike, so a job would wait beside an idle worker. `passed_on`
        says how often that was done: who passes it on may well hear it again before another does. Where all are full
        it ends, for a full worker looks for another job before it goes to sleep.
        """
        while self.runner.run_next():
            pass
        if passed_on < MOST_PASSES and self._is_for_another():
            if passed_on:
                time.sleep(PASS_PAUSE_S)
            self._ring(job_id, passed_on + 1)

    def ring_for_what_waits(self) -> None:
        """When this worker begins: those that were full have heard the rings of what waits, and let them end."""
        try:
            with self.database.read() as session:
                waiting = claimable_jobs(session).get(self.model, 0)
        except DATABASE_ERRORS as error:
            log.warning("could not look for waiting jobs; the reconciler will ring", error=str(error))
            return
        for _ in range(min(waiting, self.runner.slots.number)):
            if not self._ring(ANY):
                return

    def _is_for_another(self) -> bool:
        if self.held.closed:
            return True
        if not self.runner.slots.are_taken:
            return False
        try:
            with self.database.read() as session:
                live = live_workers(session, silence_s=self.lease_s)
                ready = sum(worker.model == self.model and worker.state is WorkerState.READY for worker in live)
                return ready > 1 and running_jobs(session, self.model) < ready * self.runner.slots.number
        except DATABASE_ERRORS as error:
            log.warning("could not look for a worker with room; the reconciler will ring", error=str(error))
            return False

    def _ring(self, job_id: str, passed_on: int = 0) -> bool:
        try:
            self.doorbell.ring_job(self.model, job_id, passed_on)
        except WIRE_ERRORS as error:
            log.warning("could not ring; the reconciler will", error=str(error))
            return False
        return True
