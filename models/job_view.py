"""A job as clients see it: the body of answers and the `data` of webhooks."""

from datetime import datetime
from typing import Any

from models.job import Job


def timestamp(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC with milliseconds."""
    return None if moment is None else moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def job_view(job: Job, *, with_request: bool = False, in_list: bool = False) -> dict[str, Any]:
    """The job; in a list without `outputs`, which can be large."""
    view: dict[str, Any] = {
        "id": job.id,
        "object": "job",
        "model": job.model,
        "status": job.status.value,
        "created_at": timestamp(job.created_at),
        "started_at": timestamp(job.started_at),
        "finished_at": timestamp(job.finished_at),
        "cancel_requested": job.cancel_requested_at is not None,
        "attempts": job.attempts,
        "priority": job.priority,
        "output_text": job.output_text,
        "finish_reason": job.finish_reason,
        "degraded": job.degraded,
        "usage": job.usage,
        "timings": job.timings,
        "manifest": job.manifest,
        "error": job.error,
        "webhook": job.webhook,
        "metadata": job.user_metadata,
    }
    if not in_list:
        view["outputs"] = job.outputs
    return view | {"request": job.request} if with_request else view
