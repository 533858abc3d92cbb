import threading

import pytest

from tests.faults.stack import Stack
from tests.processes import until
from vlmq.client import Client, Event

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

JOBS = 200
KILLS = 3
TOKENS = 60


class Follower(threading.Thread):
    """Follows one job's stream over HTTP from before it starts to its end."""

    def __init__(self, url: str, job_id: str) -> None:
        super().__init__(daemon=True)
        self._url, self._job_id = url, job_id
        self.events: list[Event] = []
        self.start()

    def run(self) -> None:
        for event in Client(self._url).events(self._job_id):
            self.events.append(event)


def test_200_jobs_survive_three_kills_of_their_worker(stack: Stack) -> None:
    ids = stack.submit(JOBS, {"tokens": TOKENS, "step_ms": 10})
    followers = [Follower(stack.url, job_id) for job_id in ids[:: JOBS // 20]]
    for kill in range(1, KILLS + 1):
        aim = JOBS * kill // (KILLS + 2)
        until(lambda aim=aim: stack.finished() >= aim, 90, what=f"the end of {aim} jobs")  # type: ignore[misc]
        stack.gpu.kill()
        stack.gpu.start()
    stack.check(ids, TOKENS)
    for follower in followers:
        follower.join(10)
        last = follower.events[-1]
        assert last.is_final
        own = [e for e in follower.events if e.attempt == last.attempt and not e.id.endswith("-0")]
        assert [event.seq for event in own] == list(range(1, len(own) + 1))
        assert "".join(event.data["text"] for event in own if event.type == "delta") == last.data["output_text"]
