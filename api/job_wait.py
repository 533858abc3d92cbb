"""Wait until a job is over, by its stream and, should that be silent, by its row."""

import time
from collections.abc import Callable

from api.job_store import load_job
from api.services import Services
from models.job import Job

# How often a waiting request asks whether its answer is still wanted.
LOOK_S = 1.0


def wait_until_final(
    service: Services, tenant: str, job_id: str, seconds: float, *, is_given_up: Callable[[], bool] | None = None
) -> Job:
    """The job when it is over, or as it is after this many seconds or when the wait `is_given_up`."""
    give_up_at = time.monotonic() + seconds
    look_s = seconds if is_given_up is None else LOOK_S
    with service.hub.follow(job_id, read_log=False) as reader:
        # Looked at after the reader is there: an end between the two would be heard by nobody.
        job = load_job(service, tenant, job_id)
        while not job.status.is_final and (left := give_up_at - time.monotonic()) > 0:
            news = reader.take(min(left, look_s))
            if news.read_log or news.row_is_final or news.closed or any(event.is_final for event in news.events):
                job = load_job(service, tenant, job_id)
            if news.closed or (is_given_up is not None and is_given_up()):
                break
    return job
