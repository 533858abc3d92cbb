"""The story of one job, top to bottom: claim, load its media, render its prompt, generate, and write down the end."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy.orm import Session

from engine.engine import Engine
from engine.types import Failed, Finished, GenerationParameters
from models.announcements import WIRE_ERRORS, ring_for
from models.db import DATABASE_ERRORS, Database
from models.lifecycle import Change, claim_next
from models.outbox import enqueue_delivery
from tasks.attempt import Attempt, Stop
from tasks.conversation import Conversation, ConversationLoader
from tasks.ending import Ending, Report
from tasks.held_jobs import HeldJobs
from vlmq.config import Settings
from vlmq.doorbell import Doorbell
from vlmq.errors import ErrorCode, VlmqError

log = structlog.get_logger(__name__)

# How long an outcome is offered to a database that is away; the lease runs out in the meantime, so a job whose
# outcome could not be written runs again.
WRITE_PATIENCE_S = 60.0


class StoppedError(Exception):
    """The attempt was asked to stop before it reached the engine."""


@dataclass
class JobRunner:
    """What one GPU worker needs to run jobs; `run_next` is called from many threads."""

    settings: Settings
    model: str
    worker_id: str
    database: Database
    doorbell: Doorbell
    conversations: ConversationLoader
    engine: Engine
    held: HeldJobs

    def run_next(self) -> bool:
        """Claim the next job of this model and see it through; False when there was none."""
        if self.held.closed:
            return False
        attempt = self._claim()
        if attempt is None:
            return False
        attempt.record("status", attempt.job.status_data())
        self.held.add(attempt)
        with structlog.contextvars.bound_contextvars(job=attempt.job.id, attempt=attempt.number):
            try:
                self._end(attempt, self._run(attempt))
            finally:
                self.held.remove(attempt)
        return True

    def _claim(self) -> Attempt | None:
        try:
            with self.database.write() as session:
                job = claim_next(
                    session, model=self.model, worker_id=self.worker_id, lease_s=self.settings.timing.lease_s
                )
                if job is None:
                    return None
                delivery_id = enqueue_delivery(session, job, "job.started")
        except DATABASE_ERRORS as error:
            log.warning("could not claim a job; the reconciler will ring again", error=str(error))
            return None
        self._ring_delivery(delivery_id)
        return Attempt(job, deadline=time.monotonic() + job.run_s)

    def _run(self, attempt: Attempt) -> Ending:
        """Everything between the claim and the end, with every error made into an ending."""
        report = Report(attempt.job)
        try:
            return self._generate(attempt, report)
        except StoppedError:
            return Ending(report)
        except VlmqError as error:
            return Ending(report, error=error)
        except Exception:
            log.exception("a job met an unexpected error")
            return Ending(report, error=VlmqError(ErrorCode.INTERNAL_ERROR, "The worker met an unexpected error."))

    def _generate(self, attempt: Attempt, report: Report) -> Ending:
        conversation = self._load_media(attempt, report)
        with report.timed("prompt"):
            sequence = self.engine.prepare(
                attempt.sequence_id,
                conversation.as_prompt(),
                generation_parameters(attempt.job.request["generation"]),
                deadline=attempt.deadline,
            )
        report.count_prompt(conversation, sequence.prompt_tokens, sequence.image_tokens, sequence.video_tokens)
        self._check_stop(attempt)
        self._progress(attempt, {"stage": "generating", "prompt_tokens": sequence.prompt_tokens})
        self.engine.submit(sequence)
        if attempt.stop is not None:
            self.engine.cancel(sequence.id)
        result = self._follow(attempt)
        report.count_result(result)
        return Ending(report, result)

    def _load_media(self, attempt: Attempt, report: Report) -> Conversation:
        def before_each(done: int, total: int) -> None:
            self._check_stop(attempt)
            if time.monotonic() > attempt.deadline:
                raise VlmqError(ErrorCode.RUN_DEADLINE_EXCEEDED, "The run deadline passed while media were loaded.")
            self._progress(attempt, {"stage": "media", "done": done, "total": total})

        with report.timed("media"):
            return self.conversations.load(attempt.job, before_each)

    def _follow(self, attempt: Attempt) -> Finished | Failed:
        """Wait for the engine's last word; meanwhile send partial text to a webhook that subscribed to it."""
        told = 0
        wants_output = attempt.wants("job.output")
        while True:
            result = attempt.wait_for_result(self.settings.timing.webhook_output_s if wants_output else 3600.0)
            text = attempt.text
            if wants_output and len(text) > told:
                self._notify(attempt, "job.output", {"offset": told, "text": text[told:]})
                told = len(text)
            if result is not None:
                return result

    def _end(self, attempt: Attempt, ending: Ending) -> None:
        """Write what became of the attempt under its fence, then tell the stream and the doorbells."""
        if attempt.stop is Stop.LOST:
            log.warning("the job was taken back from this worker; nothing is written")
            return
        change = self._write(ending.transition(attempt, self.settings.max_attempts))
        if change is None:
            log.warning("the job's end could not be written under this attempt; it is somebody else's")
            return
        attempt.record("status", change.event_data)
        self._try_to_ring(lambda: ring_for(change, self.doorbell))
        log.info("attempt ended", status=change.status.value, timings=ending.report.timings)

    def _write(self, transition: Callable[[Session], Change | None]) -> Change | None:
        give_up_at = time.monotonic() + WRITE_PATIENCE_S
        pause = 0.1
        while True:
            try:
                with self.database.write() as session:
                    return transition(session)
            except DATABASE_ERRORS as error:
                if time.monotonic() > give_up_at:
                    raise
                log.warning("could not write the end of a job; trying again", error=str(error))
                time.sleep(pause)
                pause = min(pause * 2, 2.0)

    def _check_stop(self, attempt: Attempt) -> None:
        if attempt.stop is not None:
            raise StoppedError

    def _progress(self, attempt: Attempt, data: dict[str, Any]) -> None:
        attempt.record("progress", data)
        self.held.writer.wake()
        if attempt.wants("job.progress"):
            self._notify(attempt, "job.progress", data)

    def _notify(self, attempt: Attempt, event: str, data: dict[str, Any]) -> None:
        body = {"id": attempt.job.id, "object": event, "attempt": attempt.number, **data}
        try:
            with self.database.write() as session:
                delivery_id = enqueue_delivery(session, attempt.job, event, body)
        except DATABASE_ERRORS as error:
            log.warning("could not queue a webhook about progress", error=str(error))
            return
        self._ring_delivery(delivery_id)

    def _ring_delivery(self, delivery_id: str | None) -> None:
        if delivery_id is not None:
            self._try_to_ring(lambda: self.doorbell.ring_delivery(delivery_id))

    def _try_to_ring(self, ring: Callable[[], None]) -> None:
        try:
            ring()
        except WIRE_ERRORS as error:
            log.warning("could not ring; the reconciler will", error=str(error))


def generation_parameters(stored: dict[str, Any]) -> GenerationParameters:
    return GenerationParameters(**(stored | {"stop": tuple(stored.get("stop") or ())}))
