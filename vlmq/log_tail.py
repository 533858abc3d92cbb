"""The log file of one process: its new warnings, its last lines, and its size kept in bounds."""

import json
import shutil
from collections import deque
from pathlib import Path

MAX_BYTES = 20 * 2**20
_SHOWN = frozenset({"warning", "error", "critical"})


class LogTail:
    """Follows a file that another process appends to; lines are vlmq's JSON log lines, or anything else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._position = path.stat().st_size if path.exists() else 0
        self._rest = b""

    def new_warnings(self) -> list[tuple[str, str]]:
        """(level, message) of the warnings and errors that came since the last call."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as log:
            log.seek(self._position)
            new = log.read()
        self._position += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        self.rotate()
        return [found for line in lines if (found := _warning(line)) is not None]

    def rotate(self) -> None:
        """Move the content aside once it is large; the writer goes on in the emptied file."""
        if self.path.exists() and self.path.stat().st_size > MAX_BYTES:
            shutil.copyfile(self.path, self.path.with_suffix(".log.1"))
            with self.path.open("r+b") as log:
                log.truncate(0)
            self._position, self._rest = 0, b""

    def last_lines(self, count: int) -> list[str]:
        with self.path.open(encoding="utf-8", errors="replace") as log:
            return [line.rstrip() for line in deque(log, maxlen=count)]


def _warning(line: bytes) -> tuple[str, str] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or record.get("level") not in _SHOWN:
        return None
    details = {
        name: value for name, value in record.items() if name not in ("event", "level", "timestamp", "exception")
    }
    words = [str(record.get("event")), *(f"{name}={value}" for name, value in details.items())]
    # Of a traceback, the line that says what happened; the rest is in the file.
    words += str(record.get("exception", "")).strip().splitlines()[-1:]
    return str(record["level"]), " ".join(words)
