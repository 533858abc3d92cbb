"""Wait until a job is over, by its stream and, should that be silent, by its row."""

import time

from api.job_store import load_job
from api.services import Services
from models.job import Job


def wait_until_final(service: Services, tenant: str, job_id: str, seconds: float) -> Job:
    """The job when it is over, or as it is after this many seconds."""
    give_up_at = time.monotonic() + seconds
    with service.hub.follow(job_id, read_log=False) as reader:
        # Looked at after the reader is there: an end between the two would be heard by nobody.
        job = load_job(service, tenant, job_id)
        while not job.status.is_final and (left := give_up_at - time.monotonic()) > 0:
            news = reader.take(left)
            if news.read_log or news.row_is_final or news.closed or any(event.is_final for event in news.events):
                job = load_job(service, tenant, job_id)
            if news.closed:
                break
    return job
