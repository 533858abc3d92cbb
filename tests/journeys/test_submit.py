"""`vlmq submit` on a terminal, against a running service."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.journeys.stack import Stack
from tests.processes import until
from vlmq.config import environment_with

LONG = '{"tokens": 3000, "step_ms": 20}'


class Terminal:
    """A command that believes to be on a terminal."""

    def __init__(self, url: str, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        os.set_blocking(self._master, False)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vlmq", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment_with({"VLMQ_URL": url, "TERM": "xterm"}),
            start_new_session=True,
            # A background job of a shell ignores Ctrl-C, and so would what it starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        os.close(slave)
        self.screen = ""

    def wait_for(self, text: str) -> None:
        until(lambda: text in self._read(), what=f"{text!r} on the screen")

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def end(self) -> int:
        status = self.process.wait(30)
        self._read()
        os.close(self._master)
        return status

    def _read(self) -> str:
        with suppress(OSError):  # nothing new, or the command has ended
            self.screen += os.read(self._master, 65536).decode("utf-8", "replace")
        return self.screen


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    models = {"scripted": {"checkpoint": "scripted", "engine": "scripted"}}
    with Stack(tmp_path_factory.mktemp("submit") / "data", json.dumps(models)).until_killed() as stack:
        yield stack


def test_the_answer_is_shown_as_it_comes_and_alone_on_standard_output(stack: Stack) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vlmq", "submit", "hello there"],
        env=environment_with({"VLMQ_URL": stack.url}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "echo: hello there\n", "")


def test_ctrl_c_asks_and_cancels_when_told_to(stack: Stack) -> None:
    terminal = Terminal(stack.url, "submit", LONG)
    terminal.wait_for("w5")
    terminal.process.send_signal(signal.SIGINT)
    terminal.wait_for("cancel the job?")
    terminal.type("y\n")
    assert terminal.end() == 130
    with stack.client() as client:
        job = client.wait(client.jobs(limit=1)[0].id, timeout_s=30)
    assert job.status == "cancelled"
    assert job.output_text.startswith("w1 w2 w3 w4 w5")


def test_ctrl_c_twice_leaves_the_job_running_and_says_how_to_go_on(stack: Stack) -> None:
    terminal = Terminal(stack.url, "submit", LONG)
    terminal.wait_for("w5")
    terminal.process.send_signal(signal.SIGINT)
    terminal.wait_for("cancel the job?")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    with stack.client() as client:
        job = client.jobs(limit=1)[0]
        assert f"vlmq watch {job.id}" in terminal.screen
        assert job.status == "in_progress"
        client.cancel(job.id)


def test_a_file_that_is_no_image_inside_fails_the_job_in_one_line(stack: Stack, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    done = subprocess.run(
        [sys.executable, "-m", "vlmq", "submit", str(broken), "What?"],
        env=environment_with({"VLMQ_URL": stack.url}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip().endswith("(image_invalid)")
    assert len(done.stderr.splitlines()) == 1
