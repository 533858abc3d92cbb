"""How an attempt ended: what its row will say, and the one change of status that follows."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from engine.types import Failed, Finished, FinishReason, Sequence
from models.job import Job, JobStatus, Outcome
from models.lifecycle import Change, finish, release, try_again
from tasks.attempt import Attempt, Stop, storable
from tasks.conversation import Conversation
from tasks.outputs import stored_outputs
from vlmq.errors import ErrorCode, VlmqError

# Seconds before the second and the third attempt.
RETRY_AFTER_S = (1.0, 5.0)


@dataclass
class Report:
    """What a job's row says about how it went, filled in as it goes."""

    job: Job
    usage: dict[str, int] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    outputs: list[dict[str, Any]] | None = None
    degraded: dict[str, Any] | None = None
    prompt: str | None = None
    _began: float = field(default_factory=time.monotonic)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add how many seconds the block takes, however it ends."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._add(name, time.monotonic() - began)

    def count_prompt(self, conversation: Conversation, sequence: Sequence) -> None:
        self.prompt = storable(sequence.prompt)
        self.usage |= {
            "prompt_tokens": sequence.prompt_tokens,
            "image_tokens": sequence.image_tokens,
            "video_tokens": sequence.video_tokens,
            "completion_tokens": 0,
            "total_tokens": sequence.prompt_tokens,
            "images": len(conversation.images),
            "frames": conversation.frame_count(),
        }
        self.manifest["media"] = conversation.manifest

    def count_result(
        self, result: Finished | Failed, sequence: Sequence, *, submitted_at: float, started_at: float
    ) -> None:
        """Add what a try brought that the engine got and began with at these times of `time.monotonic()`."""
        self._add("engine_wait", started_at - submitted_at)
        self.usage["completion_tokens"] = result.completion_tokens
        self.usage["total_tokens"] = self.usage["prompt_tokens"] + result.completion_tokens
        if isinstance(result, Finished):
            self.manifest["seed"] = result.seed
            self.outputs = stored_outputs(result, sequence.lead)
            self._add("generation", result.generation_s)
            if result.first_token_s is not None:
                self.timings["first_token"] = round(result.first_token_s, 6)
        else:
            self._add("generation", time.monotonic() - started_at)

    def _add(self, name: str, seconds: float) -> None:
        self.timings[name] = round(self.timings.get(name, 0.0) + seconds, 6)

    def complete(self) -> None:
        """Add what is known at the end only."""
        started = self.job.started_at or self.job.created_at
        queued = (started - self.job.created_at).total_seconds()
        self.timings["queued"] = round(queued, 6)
        self.timings["total"] = round(queued + time.monotonic() - self._began, 6)


@dataclass(frozen=True)
class Ending:
    """How an attempt ended: with the engine's reason, with an error, or (neither) because it was stopped."""

    report: Report
    finish_reason: FinishReason | None = None
    error: VlmqError | None = None

    def transition(self, attempt: Attempt, max_attempts: int) -> Callable[[Session], Change | None]:
        """The one change of status that follows, as a function of a session."""
        job_id, number, outcome = attempt.job.id, attempt.number, self._outcome(attempt.text)
        if outcome.status is JobStatus.CANCELLED and attempt.stop is not Stop.CANCEL:
            return lambda session: release(session, job_id, number, outcome)
        if self.error is None or not self.error.retryable:
            return lambda session: finish(session, job_id, number, outcome)
        after_s = RETRY_AFTER_S[min(attempt.job.attempts, len(RETRY_AFTER_S)) - 1]
        return lambda session: try_again(session, job_id, number, outcome, after_s=after_s, max_attempts=max_attempts)

    def _outcome(self, text: str) -> Outcome:
        status, reason = JobStatus.COMPLETED, self.finish_reason
        if self.error is not None:
            status = JobStatus.FAILED
            reason = "deadline" if self.error.code is ErrorCode.RUN_DEADLINE_EXCEEDED else None
        elif reason is None:
            status, reason = JobStatus.CANCELLED, "cancelled"
        self.report.complete()
        return Outcome(
            status=status,
            output_text=text,
            finish_reason=reason,
            usage=self.report.usage or None,
            timings=self.report.timings,
            manifest=self.report.manifest,
            error=None if self.error is None else _told(self.error),
            outputs=self.report.outputs,
            degraded=self.report.degraded,
            prompt=self.report.prompt,
        )


def _told(error: VlmqError) -> dict[str, str | None]:
    # A message may quote what a template or a file holds; if it could not be stored, the job would never end.
    return {name: value and storable(value) for name, value in error.as_dict().items()}
