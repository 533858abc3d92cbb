"""`vlmq serve` whose output nobody reads any more."""

import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.journeys.stack import FAST_TIMING
from tests.processes import until
from vlmq.client import Client
from vlmq.config import environment_with
from vlmq.free_port import free_port

SCRIPTED = json.dumps({"scripted": {"checkpoint": "none", "engine": "scripted"}})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_jobs_are_given_back_although_the_reader_is_gone(tmp_path: Path, number: signal.Signals) -> None:
    port = free_port("127.0.0.1", 0)
    with subprocess.Popen(
        [sys.executable, "-m", "vlmq", "serve", "--port", str(port), "--data-dir", str(tmp_path / "data")],
        env=environment_with({"VLMQ_MODELS": SCRIPTED, "VLMQ_TIMING": FAST_TIMING}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as serve:
        assert serve.stdout is not None
        next(line for line in serve.stdout if b"vlmq is ready" in line)
        with Client(f"http://127.0.0.1:{port}") as client:
            messages = [{"role": "user", "content": '{"tokens": 400, "step_ms": 50}'}]
            job = client.submit(messages, model="scripted")
            until(lambda: client.get(job.id).output_text != "", what="the job writes")
        serve.stdout.close()
        serve.send_signal(number)
        assert serve.wait(30) == 0
    with sqlite3.connect(tmp_path / "data" / "vlmq.db") as connection:
        assert connection.execute("SELECT status FROM jobs").fetchall() == [("queued",)]
