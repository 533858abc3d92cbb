import pytest

from models.job import Job, JobStatus
from tests.faults.stack import Stack
from tests.processes import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.mark.parametrize(("poison", "healthy"), [(1, 10), pytest.param(4, 36, marks=pytest.mark.long)])
def test_jobs_that_kill_their_worker_fail_and_every_other_completes(stack: Stack, poison: int, healthy: int) -> None:
    deadly = stack.submit(poison, {"tokens": 20, "kill_at": 10, "step_ms": 5}, prefix="poison")
    harmless = stack.submit(healthy, {"tokens": 20, "step_ms": 5}, prefix="healthy")
    starts = 1

    def all_over() -> bool:
        nonlocal starts
        if stack.gpu.process is not None and stack.gpu.process.poll() is not None:
            stack.gpu.start()  # what a supervisor does
            starts += 1
        return stack.finished() == poison + healthy

    until(all_over, 300, what="the end of all jobs")
    # Once in company, where more than one may have gone at a time, and three times alone.
    assert 3 * poison + 2 <= starts <= 4 * poison + 1
    with stack.database.read() as session:
        for job_id in deadly:
            job = session.get_one(Job, job_id)
            assert (job.status, job.attempts, job.crashes) == (JobStatus.FAILED, 3, 4)
            assert job.error is not None
            assert job.error["code"] == "worker_lost"
        for job_id in harmless:
            job = session.get_one(Job, job_id)
            assert (job.status, job.attempts) == (JobStatus.COMPLETED, 1), job.error
            assert job.crashes <= 1
