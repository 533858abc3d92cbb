import pytest

from models.job import Job, JobStatus
from tests.faults.stack import Stack
from tests.processes import until

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(400)]

POISON = 2
HEALTHY = 30


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


def test_jobs_that_kill_their_worker_fail_and_the_others_complete(stack: Stack) -> None:
    poison = stack.submit(POISON, {"tokens": 20, "kill_at": 10}, prefix="poison")
    healthy = stack.submit(HEALTHY, {"tokens": 20, "step_ms": 5}, prefix="healthy")

    def all_over() -> bool:
        if stack.gpu.process is not None and stack.gpu.process.poll() is not None:
            stack.gpu.start()  # what a supervisor does
        return stack.finished() == POISON + HEALTHY

    until(all_over, 300, what="the end of all jobs")
    with stack.database.read() as session:
        for job_id in poison:
            job = session.get_one(Job, job_id)
            assert (job.status, job.attempts) == (JobStatus.FAILED, 3)
            assert job.error is not None
            assert job.error["code"] == "worker_lost"
        outcomes = [(session.get_one(Job, job_id).status, session.get_one(Job, job_id).error) for job_id in healthy]
    assert {status for status, _ in outcomes} <= {JobStatus.COMPLETED, JobStatus.FAILED}
