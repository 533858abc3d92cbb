"""`vlmq serve` as its user runs it: a process, its output, and what it started."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import psutil

from tests.processes import until
from vlmq.client import Client
from vlmq.config import environment_with
from vlmq.free_port import free_port

START_S = 150.0
FAST_TIMING = '{"lease_s": 3, "heartbeat_s": 0.5, "reconcile_s": 0.5, "drain_s": 0.5}'


class Stack:
    """A `vlmq serve` on a free port, whose data are in `folder`."""

    def __init__(self, folder: Path, models: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.port = free_port("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.port}"
        self.output_path = folder.with_name(folder.name + ".out")
        command = ["serve", "--port", str(self.port), "--data-dir", str(folder), "--allow-private-urls", *arguments]
        with self.output_path.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "vlmq", *command],
                env=environment_with({"VLMQ_MODELS": models, "VLMQ_TIMING": FAST_TIMING} | (environment or {})),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self.output_path.read_text(encoding="utf-8")

    @contextmanager
    def until_killed(self) -> Iterator[Self]:
        """Ready within the block, and killed at its end, however that comes."""
        try:
            self.wait_until_ready()
            yield self
        finally:
            self.process.kill()
            self.process.wait()

    def client(self) -> Client:
        return Client(self.url)

    def wait_until_ready(self) -> None:
        until(lambda: self._is_ready() or self.process.poll() is not None, START_S, what="the stack's readiness")
        assert self.process.poll() is None, self.output

    def _is_ready(self) -> bool:
        return "vlmq is ready" in self.output

    def parts(self) -> dict[str, int]:
        """The process ids of what serve has started, by name."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            try:
                words = child.cmdline()
            except psutil.Error:
                continue
            if "valkey-server" in " ".join(words):
                found["redis"] = child.pid
            elif "vlmq" in words:
                found[" ".join(words[words.index("vlmq") + 1 :])] = child.pid
        return found

    def left_running(self) -> list[str]:
        """Every living process that this stack started, however deep, or that has its data directory."""
        return [" ".join(process.cmdline()) for process in psutil.process_iter() if self._is_mine(process)]

    def _is_mine(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                return False
            return bool(process.environ().get("VLMQ_DATA_DIR") == str(self.folder.resolve()))
        except psutil.Error:
            return False

    def stop(self, number: int = signal.SIGINT) -> int:
        """Signal it, and return its exit status."""
        self.process.send_signal(number)
        return self.process.wait(30)
