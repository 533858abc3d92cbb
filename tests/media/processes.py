"""Looking at other processes through /proc."""

import time
from collections.abc import Callable
from pathlib import Path


def until(condition: Callable[[], bool], within_s: float = 20) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def children_of(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = status_of(int(entry.name))
            if fields and fields[1] == str(parent) and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def status_of(pid: int) -> list[str]:
    """State and parent; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def is_gone(pid: int) -> bool:
    return status_of(pid)[:1] in ([], ["Z"])


def busy_children(server: int) -> list[int]:
    """Those that have a job, which is when they give up the right to open files."""
    return [pid for pid in children_of(server) if open_files_limit(pid) == "0"]


def open_files_limit(pid: int) -> str:
    try:
        lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return next((line.split()[3] for line in lines if line.startswith("Max open files")), "")
