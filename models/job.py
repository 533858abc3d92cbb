"""The jobs table: one row a job, and the truth about it."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ForeignKey, Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from models.db import Base, partial_index, stored_enum


class JobStatus(StrEnum):
    """`queued -> in_progress -> completed | failed | cancelled | expired`; the last four are final."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_final(self) -> bool:
        return self not in (JobStatus.QUEUED, JobStatus.IN_PROGRESS)


class JobKind(StrEnum):
    """What is wanted: an answer, or only the prompt as the model would get it."""

    GENERATE = "generate"
    RENDER = "render"


class Job(Base):
    """What a client submitted and what became of it. Status changes in models/claims.py and lifecycle.py only."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    model: Mapped[str]
    status: Mapped[JobStatus] = mapped_column(stored_enum(JobStatus), default=JobStatus.QUEUED)
    kind: Mapped[JobKind] = mapped_column(
        stored_enum(JobKind), default=JobKind.GENERATE, server_default=JobKind.GENERATE.value
    )
    # The request as validated, in transformers' form, with inline media replaced by file ids.
    request: Mapped[dict[str, Any]]
    user_metadata: Mapped[dict[str, Any]] = mapped_column("metadata", default=dict)
    webhook: Mapped[dict[str, Any] | None]
    priority: Mapped[int] = mapped_column(default=5)

    created_at: Mapped[datetime]
    available_at: Mapped[datetime | None]  # a retry is not claimed before this; None: at once
    start_deadline_at: Mapped[datetime]
    run_s: Mapped[float]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]

    # `attempt` fences every write and so grows with each claim; `releases` counts the claims that ended without fault
    # of the job (a shutdown, a first crash that another may have caused), which do not count against it.
    attempt: Mapped[int] = mapped_column(default=0)
    releases: Mapped[int] = mapped_column(default=0)
    # Claims that ended with the death of their worker; a job that has killed one runs alone.
    crashes: Mapped[int] = mapped_column(default=0, server_default="0")
    worker_id: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]

    # As the model got it; large, and rarely asked for.
    prompt: Mapped[str | None] = mapped_column(Text)
    output_text: Mapped[str | None]
    # All of them where more than one, or more than text, was asked for.
    outputs: Mapped[list[dict[str, Any]] | None]
    # What was given up so that the job fits into the memory.
    degraded: Mapped[dict[str, Any] | None]
    finish_reason: Mapped[str | None]
    usage: Mapped[dict[str, Any] | None]
    timings: Mapped[dict[str, Any] | None]
    manifest: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]

    __table_args__ = (
        partial_index("ix_jobs_claim", "model", priority.desc(), "id", where="status = 'queued'"),
        # A full worker looks for renders alone at every ring; it must not pass by all that waits.
        partial_index(
            "ix_jobs_claim_render", "model", priority.desc(), "id", where="status = 'queued' AND kind = 'render'"
        ),
        partial_index("ix_jobs_render", "created_at", where="kind = 'render'"),
        partial_index("ix_jobs_lease", "lease_expires_at", where="status = 'in_progress'"),
        partial_index("ix_jobs_start_deadline", "start_deadline_at", where="status = 'queued'"),
        Index("ix_jobs_tenant", "tenant", "id"),
        # For counting alone, which would otherwise read through all requests and answers.
        Index("ix_jobs_model_status", "model", "status"),
    )

    @property
    def attempts(self) -> int:
        """The tries that count."""
        return self.attempt - self.releases

    @property
    def runs_alone(self) -> bool:
        """Whether it may have killed a worker, and so must have one to itself."""
        return self.crashes > 0

    def status_data(self) -> dict[str, Any]:
        """The data of a `status` event; a final one carries the result."""
        data: dict[str, Any] = {"status": self.status.value, "attempt": self.attempt}
        if self.error is not None:
            data["error"] = self.error
        if not self.status.is_final:
            return data
        return data | {
            "finish_reason": self.finish_reason,
            "output_text": self.output_text,
            "usage": self.usage,
            "timings": self.timings,
        }


class JobFile(Base):
    """A file that a job's messages refer to, so that neither loses the other."""

    __tablename__ = "job_files"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    file_id: Mapped[str] = mapped_column(ForeignKey("files.id"), primary_key=True, index=True)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended, as its worker reports it."""

    status: JobStatus
    output_text: str = ""
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    timings: dict[str, Any] | None = None
    manifest: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    outputs: list[dict[str, Any]] | None = None
    degraded: dict[str, Any] | None = None
    prompt: str | None = None
