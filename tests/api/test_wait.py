import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.api.conftest import Server


def test_a_wait_ends_with_the_job_and_not_with_its_time(server: Server) -> None:
    job_id = server.submit()
    order: list[str] = []
    asked = threading.Barrier(4)

    def wait() -> str:
        asked.wait(20)
        answer = requests.get(f"{server.url}/v1/jobs/{job_id}?wait=55", timeout=60).json()
        order.append("answered")
        return str(answer["output_text"])

    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(wait) for _ in range(3)]
        asked.wait(20)
        job = server.worker.claim(job_id)
        server.worker.say(job, "not yet")
        order.append("ended")
        server.worker.end(job, "done")
        # Far below the 55 s that they were ready to wait.
        assert [future.result(20) for future in waiting] == ["done"] * 3
    assert order == ["ended", "answered", "answered", "answered"]


def test_a_wait_sees_an_end_that_redis_never_told(server: Server) -> None:
    job_id = server.submit()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(requests.get, f"{server.url}/v1/jobs/{job_id}?wait=55", timeout=60)
        server.worker.write_end(server.worker.claim(job_id), "done")
        assert waiting.result(20).json()["status"] == "completed"


def test_a_wait_that_runs_out_answers_with_the_job_as_it_is(server: Server) -> None:
    job_id = server.submit()
    answer = requests.get(f"{server.url}/v1/jobs/{job_id}?wait=0.05", timeout=20)
    assert (answer.status_code, answer.json()["status"]) == (200, "queued")


def test_the_partial_text_of_a_running_job_is_shown(server: Server) -> None:
    job_id = server.submit()
    job = server.worker.claim(job_id)
    server.worker.say(job, "A red")
    server.worker.say(job, " circle")
    assert requests.get(f"{server.url}/v1/jobs/{job_id}", timeout=20).json()["output_text"] == "A red circle"
    server.worker.fail_for_now(job)
    again = server.worker.claim(job_id)
    server.worker.say(again, "A")
    assert requests.get(f"{server.url}/v1/jobs/{job_id}", timeout=20).json()["output_text"] == "A"


@pytest.mark.parametrize("wait", ["-1", "soon", "nan", "inf"])
def test_a_wait_takes_seconds(server: Server, wait: str) -> None:
    answer = requests.get(f"{server.url}/v1/jobs/{server.submit()}", params={"wait": wait}, timeout=20)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "wait")
