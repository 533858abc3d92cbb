"""Processes that the benchmarks measure, and the clock of a round."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import requests


@contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that is ended, with its log kept, however the block ends."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, **environment},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_for(url: str, *, timeout_s: float = 180.0, every_s: float = 0.02) -> float:
    """Seconds until the address answers with 200."""
    began = time.perf_counter()
    while time.perf_counter() - began < timeout_s:
        try:
            if requests.get(url, timeout=5).status_code == 200:
                return time.perf_counter() - began
        except requests.RequestException:
            pass
        time.sleep(every_s)
    raise TimeoutError(f"{url} did not answer in {timeout_s:g} s")


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def largest_child(pid: int) -> psutil.Process:
    """The process with the most memory among a process and its descendants."""
    process = psutil.Process(pid)
    family: list[psutil.Process] = [process, *process.children(recursive=True)]
    return max(family, key=_resident)


def _resident(process: psutil.Process) -> int:
    return int(process.memory_info().rss)
