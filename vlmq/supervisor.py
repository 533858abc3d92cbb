"""Keeps the processes of the one-machine stack running: starts them, starts again those that die, ends them all."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from vlmq.log_tail import LogTail

TICK_S = 0.1
PROBE_S = 0.25
START_FAILURES = 5
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
# A part that ran for this long starts again at once when it dies.
STEADY_S = 30.0
LAST_LINES = 12

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Part:
    """One process of the stack.

    `is_ready` is asked, with its process id, until it says yes. A first start that ends with an exit status in
    `hopeless` has logged why, and there is no point in another.
    """

    name: str
    command: Sequence[str]
    is_ready: Callable[[int], bool]
    hopeless: frozenset[int] = frozenset()


class PartFailedError(Exception):
    """A part cannot be kept running; the message says which and why, `last_lines` are the end of its log."""

    def __init__(self, message: str, last_lines: Sequence[str]) -> None:
        super().__init__(message)
        self.last_lines = last_lines


@dataclass
class _Child:
    part: Part
    log: LogTail
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    probed_at: float = 0.0
    ready: bool = False
    was_ready: bool = False
    failed_starts: int = 0
    quick_deaths: int = 0
    start_at: float = field(default_factory=time.monotonic)


class Supervisor:
    """Runs parts as children in sessions of their own, so that Ctrl-C reaches this process alone.

    Has no threads, and must be used from the main thread: Linux ends the children when the thread that started them
    ends, however it does.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        logs: Path,
        *,
        notice: Callable[[str], None],
        relay: Callable[[str, str], None],
    ) -> None:
        self._environment, self._logs = environment, logs
        self._notice, self._relay = notice, relay
        self._children: list[_Child] = []

    def add(self, part: Part) -> None:
        """Start `part` at the next `look`, and keep it running from then on.

        Raises:
            PartFailedError: its log cannot be written.
        """
        self._children.append(_Child(part, _log(self._logs / log_name(part.name))))

    @property
    def starting(self) -> list[str]:
        """The names of the parts that are not ready."""
        return [child.part.name for child in self._children if not child.ready]

    def look(self) -> None:
        """See to every part once: start, probe, notice a death, pass on warnings. Call it every `TICK_S` or so.

        Raises:
            PartFailedError: a part cannot be kept running.
        """
        for child in self._children:
            self._relay_warnings(child)
            if child.process is None:
                if time.monotonic() >= child.start_at:
                    self._start(child)
            elif _has_ended(child.process):
                self._after_death(child, child.process)
            elif not child.ready and time.monotonic() - child.probed_at > PROBE_S:
                self._probe(child, child.process)

    def signal(self, *names: str) -> None:
        """Ask these parts to end (SIGTERM)."""
        for child in self._named(names):
            if child.process is not None:
                child.process.terminate()

    def end(self, *names: str, within_s: float, cut_short: Callable[[], bool]) -> None:
        """Wait until these parts have ended, for at most `within_s` or until `cut_short`; then kill what is left."""
        deadline = time.monotonic() + within_s
        children = [child for child in self._named(names) if child.process is not None]
        while children and time.monotonic() < deadline and not cut_short():
            for child in children:
                self._relay_warnings(child)
            children = [child for child in children if child.process is not None and not _has_ended(child.process)]
            time.sleep(TICK_S / 2)
        for child in children:
            if not cut_short():
                self._notice(f"{child.part.name} did not end in time and is killed")
        for child in self._named(names):
            if child.process is not None:
                _sweep(child.process)
                child.process = None

    def _relay_warnings(self, child: _Child) -> None:
        for level, line in child.log.new_warnings():
            self._relay(child.part.name, f"{level}: {line}")

    def _named(self, names: Sequence[str]) -> list[_Child]:
        return [child for child in self._children if child.part.name in names]

    def _start(self, child: _Child) -> None:
        child.log.rotate()
        with child.log.path.open("ab") as log:
            child.process = subprocess.Popen(
                list(child.part.command),
                env=dict(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # Safe, as this process has a single thread.
                preexec_fn=partial(die_with_parent, os.getpid()),  # noqa: PLW1509
            )
        child.started_at = time.monotonic()
        child.probed_at = 0.0
        child.ready = False

    def _probe(self, child: _Child, process: subprocess.Popen[bytes]) -> None:
        child.probed_at = time.monotonic()
        if not child.part.is_ready(process.pid):
            return
        child.ready = True
        child.failed_starts = 0
        if child.was_ready:
            self._notice(f"{child.part.name} is back")
        child.was_ready = True

    def _after_death(self, child: _Child, process: subprocess.Popen[bytes]) -> None:
        _sweep(process)
        child.process = None
        self._relay_warnings(child)
        name, how = child.part.name, _describe_exit(process.returncode)
        if not child.ready:
            child.failed_starts += 1
            if process.returncode in child.part.hopeless and not child.was_ready:
                raise PartFailedError(f"{name} cannot run", [])
            if child.failed_starts >= START_FAILURES:
                message = f"{name} failed {START_FAILURES} times in a row while it started ({how} the last time)"
                raise PartFailedError(message, child.log.last_lines(LAST_LINES))
        steady = child.ready and time.monotonic() - child.started_at > STEADY_S
        child.quick_deaths = 0 if steady else child.quick_deaths + 1
        pause = 0.0 if steady else min(FIRST_PAUSE_S * 2 ** (child.quick_deaths - 1), LONGEST_PAUSE_S)
        child.start_at = time.monotonic() + pause
        child.ready = False
        self._notice(f"{name} died ({how}); starting it again")


def log_name(part: str) -> str:
    """A file's name for the log of a part, which may be named after a repository on the hub."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", part.replace(" ", "-", 1)) + ".log"


def _log(path: Path) -> LogTail:
    try:
        path.open("ab").close()
    except OSError as error:
        raise PartFailedError(f"the log {path} cannot be written: {error.strerror}", []) from None
    return LogTail(path)


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has, without reaping it: while it is a zombie, nothing else can have its process id."""
    if process.returncode is not None:
        return True
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _sweep(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a part: the process itself if need be, and those that it started."""
    if process.returncode is None:
        # macOS refuses to signal a group whose last member is a zombie.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _describe_exit(returncode: int) -> str:
    if returncode < 0:
        return f"killed by {signal.Signals(-returncode).name}"
    return f"exit status {returncode}"


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when `parent`, its parent, ends, however that happens (Linux only)."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
