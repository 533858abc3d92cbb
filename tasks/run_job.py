"""The story of one job, top to bottom: claim, load its media, render its prompt, generate, and write down the end."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import structlog
from sqlalchemy.orm import Session

from engine.engine import Engine
from engine.types import Failed, Finished, FinishReason, Sequence
from media.template_renderer import TemplateRenderer
from models.db import DATABASE_ERRORS, Database
from models.job import JobKind
from models.lifecycle import Change
from tasks.attempt import Attempt, StoppedError
from tasks.claim import Claimed, Claims
from tasks.conversation import Conversation, ConversationLoader
from tasks.degradation import Ladder
from tasks.ending import Ending, Report
from tasks.generation_request import generation_parameters
from tasks.held_jobs import HeldJobs
from tasks.notices import Notices
from tasks.prompt_template import fill_in, prompt_request
from tasks.slots import Slots
from vlmq.config import Settings
from vlmq.doorbell import Doorbell
from vlmq.errors import ErrorCode, VlmqError

log = structlog.get_logger(__name__)

# How long the end of a job is offered to a database that is away. After that its lease runs out, and it runs again.
WRITE_PATIENCE_S = 60.0


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
    templates: TemplateRenderer
    write_patience_s: float = WRITE_PATIENCE_S
    slots: Slots = field(init=False)
    claims: Claims = field(init=False)
    notices: Notices = field(init=False)

    def __post_init__(self) -> None:
        self.slots = Slots(self.settings.models[self.model].max_in_flight)
        self.claims = Claims(self.model, self.worker_id, self.settings.timing.lease_s, self.database, self.held)
        self.notices = Notices(self.database, self.doorbell)

    def run_next(self) -> bool:
        """Claim the next job of this model and see it through; False when there was none.

        A thread that comes when the worker has all the jobs that it may hold looks for prompts to render alone.
        """
        with self.slots.take() as slot, self.claims.next(renders_only=not slot.taken) as claimed:
            if claimed is not None:
                self._see_through(claimed)
        return claimed is not None or slot.asked_for

    def _see_through(self, claimed: Claimed) -> None:
        attempt = claimed.attempt
        with structlog.contextvars.bound_contextvars(job=attempt.job.id, attempt=attempt.number):
            self.notices.ring_delivery(claimed.delivery_id)
            change = self._end(attempt, self._run(attempt))
            if change is not None:
                self.notices.ring_for(change)

    def _run(self, attempt: Attempt) -> Ending:
        """Everything between the claim and the end, with every error made into an ending."""
        report = Report(attempt.job)
        try:
            return Ending(report, finish_reason=self._generate(attempt, report))
        except StoppedError:
            return Ending(report)
        except VlmqError as error:
            return Ending(report, error=error)
        except DATABASE_ERRORS as error:
            # Not the job's fault: it goes back unspent.
            log.warning("the database went away under a job; giving it back", error=str(error))
            return Ending(report)
        except Exception:
            log.exception("a job met an unexpected error")
            return Ending(report, error=VlmqError(ErrorCode.INTERNAL_ERROR, "The worker met an unexpected error."))

    def _generate(self, attempt: Attempt, report: Report) -> FinishReason:
        """Load, render and generate; why the engine finished.

        Raises:
            VlmqError: the job failed, or ran into its deadline.
            StoppedError: it was ended from outside.
        """
        with _telling_what_cut_off(attempt):
            conversation = self._load_media(attempt, report)
            # Once: what it fills in are users' words, which must not be taken for templates themselves.
            fill_in(conversation.messages, attempt.job.request, self.templates, attempt.loading)
        ladder = Ladder(conversation, attempt.job.request.get("allow_degraded", True))
        while _ran_out_of_memory(result := self._try(attempt, ladder.conversation, report)):
            ladder.step_down(result.error)
            report.degraded = ladder.record()
            attempt.record("progress", {"stage": "degraded", **report.degraded})
            log.warning("out of memory; trying with less", degraded=report.degraded)
        if result is None:
            return "stop"
        if isinstance(result, Failed):
            raise result.error
        if result.finish_reason == "deadline":
            raise deadline_exceeded()
        if result.finish_reason == "cancelled":
            raise StoppedError
        return result.finish_reason

    def _try(self, attempt: Attempt, conversation: Conversation, report: Report) -> Finished | Failed | None:
        """Render and generate; what the engine says in the end, or that the memory did not take the prompt.

        None when only the prompt was wanted.
        """
        attempt.result = attempt.started_at = None
        attempt.check_stop()
        try:
            sequence = self._prepare(attempt, conversation, report)
        except VlmqError as error:
            if error.code is not ErrorCode.OUT_OF_MEMORY:
                raise
            return Failed(attempt.sequence_id, error, "", 0)
        attempt.check_stop()
        if attempt.job.kind is JobKind.RENDER:
            return None
        progress = {"stage": "generating", "prompt_tokens": sequence.prompt_tokens}
        attempt.record("progress", progress)
        submitted_at = time.monotonic()
        self._submit(attempt, sequence)
        self._tell_progress(attempt, progress)
        result = self._follow(attempt)
        started_at = time.monotonic() if attempt.started_at is None else attempt.started_at
        # Not the job's own time: the engine did not count it either.
        attempt.deadline += started_at - submitted_at
        report.count_result(result, sequence, submitted_at=submitted_at, started_at=started_at)
        return result

    def _prepare(self, attempt: Attempt, conversation: Conversation, report: Report) -> Sequence:
        request = attempt.job.request
        with report.timed("prompt"):
            sequence = self.engine.prepare(
                attempt.sequence_id,
                prompt_request(conversation, request),
                generation_parameters(request["generation"]),
                deadline=attempt.deadline,
            )
        report.count_prompt(conversation, sequence)
        report.manifest["max_new_tokens"] = sequence.max_new_tokens
        return sequence

    def _submit(self, attempt: Attempt, sequence: Sequence) -> None:
        # Said with the first text: until then the memory may run out, and another prompt be read.
        attempt.lead = sequence.lead
        try:
            self.engine.submit(sequence)
        except VlmqError as error:
            # It can do no more, and this process ends: not the fault of this job, nor of those that wait.
            log.error("the engine takes no more work", reason=error.message)
            self.held.closed = True
            raise StoppedError from None
        if attempt.stop is not None:
            self.engine.cancel(sequence.id)

    def _load_media(self, attempt: Attempt, report: Report) -> Conversation:
        def before_each(done: int, total: int) -> None:
            attempt.check_stop()
            if time.monotonic() > attempt.deadline:
                raise deadline_exceeded()
            progress = {"stage": "media", "done": done, "total": total}
            attempt.record("progress", progress)
            self._tell_progress(attempt, progress)

        with report.timed("media"):
            return self.conversations.load(attempt.job, before_each, attempt.loading)

    def _follow(self, attempt: Attempt) -> Finished | Failed:
        """Wait for the engine's last word; meanwhile send partial text to a webhook that subscribed to it."""
        told = 0
        wants_output = attempt.wants("job.output")
        while True:
            result = attempt.wait_for_result(self.settings.timing.webhook_output_s if wants_output else 3600.0)
            text = attempt.text
            if wants_output and len(text) > told:
                self.notices.tell(attempt, "job.output", {"offset": told, "text": text[told:]})
                told = len(text)
            if result is not None:
                return result

    def _end(self, attempt: Attempt, ending: Ending) -> Change | None:
        """Write what became of the attempt under its fence, then tell its stream."""
        change = self._write(ending.transition(attempt, self.settings.max_attempts))
        if change is None:
            log.warning("nothing is written: the job was taken back from this worker")
            return None
        attempt.record("status", change.event_data)
        self.held.writer.wake()
        log.info("attempt ended", status=change.status.value, timings=ending.report.timings)
        return change

    def _write(self, transition: Callable[[Session], Change | None]) -> Change | None:
        give_up_at = time.monotonic() + self.write_patience_s
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

    def _tell_progress(self, attempt: Attempt, data: dict[str, Any]) -> None:
        self.held.writer.wake_soon()
        self.notices.tell(attempt, "job.progress", data)


@contextmanager
def _telling_what_cut_off(attempt: Attempt) -> Iterator[None]:
    """What is ended by a cancel, a shutdown or the deadline did not fail by itself."""
    try:
        yield
    except VlmqError:
        attempt.check_stop()
        if attempt.loading.passed:
            raise deadline_exceeded() from None
        raise


def deadline_exceeded() -> VlmqError:
    return VlmqError(ErrorCode.RUN_DEADLINE_EXCEEDED, "The job ran into its deadline.", param="deadlines.run_s")


def _ran_out_of_memory(result: Finished | Failed | None) -> TypeGuard[Failed]:
    """Whether it can be tried anew with less: a reader must not have seen any text."""
    return isinstance(result, Failed) and result.error.code is ErrorCode.OUT_OF_MEMORY and not result.text
