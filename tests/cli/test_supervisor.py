"""The supervisor, over small programs that live and die as told."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.processes import until
from vlmq.config import environment_with
from vlmq.supervisor import Part, PartFailedError, Supervisor

SLEEP = "import time; time.sleep(60)"


class Watched:
    """A supervisor and what it said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notices: list[str] = []
        self.relayed: list[tuple[str, str]] = []
        self.supervisor = Supervisor(
            environment_with({}),
            folder,
            notice=self.notices.append,
            relay=lambda part, line: self.relayed.append((part, line)),
        )

    def add(self, name: str, code: str, is_ready: Callable[[int], bool] = lambda _pid: True) -> None:
        hopeless = frozenset({78})
        self.supervisor.add(Part(name, [sys.executable, "-c", code], is_ready, hopeless))

    def look_until(self, condition: Callable[[], bool]) -> None:
        def looked() -> bool:
            self.supervisor.look()
            return condition()

        until(looked, what="what the supervisor should bring about")

    def pid(self) -> int:
        living = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
        # Not the last by its id: ids begin anew when they run out, and servers of other tests may be running.
        return int(max(living, key=psutil.Process.create_time).pid)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(tmp_path)
    yield watched
    watched.supervisor.end("a", "b", within_s=0, cut_short=lambda: True)


def test_a_part_that_dies_is_started_again_and_said_to_be_back(watched: Watched) -> None:
    watched.add("a", SLEEP)
    watched.look_until(lambda: not watched.supervisor.starting)
    first = watched.pid()
    os.kill(first, signal.SIGKILL)
    watched.look_until(lambda: len(watched.notices) == 2)
    assert watched.notices == ["a died (killed by SIGKILL); starting it again", "a is back"]
    assert watched.pid() != first


def test_a_part_that_never_gets_ready_is_given_up_with_the_end_of_its_log(watched: Watched) -> None:
    watched.add("a", "import sys; sys.exit('no such luck')", is_ready=lambda _pid: False)
    with pytest.raises(PartFailedError, match=r"a failed 5 times in a row while it started \(exit status 1") as caught:
        watched.look_until(lambda: False)
    assert caught.value.last_lines[-1] == "no such luck"


def test_a_hopeless_exit_is_not_tried_again(watched: Watched) -> None:
    line = '{"level": "error", "event": "no model", "reason": "no file"}'
    watched.add("a", f"import sys; print('{line}'); sys.exit(78)", is_ready=lambda _pid: False)
    with pytest.raises(PartFailedError, match="a cannot run"):
        watched.look_until(lambda: False)
    assert watched.relayed == [("a", "error: no model reason=no file")]
    assert watched.notices == []


def test_what_a_part_started_dies_with_it(watched: Watched) -> None:
    note = watched.folder / "grandchild"
    watched.add(
        "a",
        f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', '{SLEEP}']);"
        f"open({str(note)!r}, 'w').write(str(p.pid)); p.wait()",
    )
    watched.look_until(lambda: note.exists() and note.read_text() != "")
    grandchild = int(note.read_text())
    os.kill(watched.pid(), signal.SIGKILL)
    watched.look_until(lambda: bool(watched.notices))
    until(lambda: not _runs(grandchild), what="the grandchild's end")


def test_a_part_that_ignores_sigterm_is_killed_and_named(watched: Watched) -> None:
    note = watched.folder / "deaf"
    deaf = f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open({str(note)!r}, 'w'); {SLEEP}"
    watched.add("a", deaf)
    watched.look_until(note.exists)
    pid = watched.pid()
    watched.supervisor.signal("a")
    watched.supervisor.end("a", within_s=0.3, cut_short=lambda: False)
    assert watched.notices == ["a did not end in time and is killed"]
    assert not _runs(pid)


def test_a_second_request_to_stop_does_not_wait(watched: Watched) -> None:
    watched.add("a", SLEEP)
    watched.look_until(lambda: not watched.supervisor.starting)
    pid, began = watched.pid(), time.monotonic()
    watched.supervisor.end("a", within_s=60, cut_short=lambda: True)
    assert time.monotonic() - began < 10
    assert not _runs(pid)


def test_parts_end_with_the_supervisors_process_however_it_ends(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = (
        "import sys, time; from pathlib import Path; from vlmq.supervisor import Part, Supervisor;"
        "from vlmq.config import environment_with;"
        f"s = Supervisor(environment_with({{}}), Path({str(tmp_path)!r}), notice=print, relay=print);"
        f"s.add(Part('a', [sys.executable, '-c', 'import os, time; "
        f'open("{note}", "w").write(str(os.getpid())); time.sleep(60)\'], lambda pid: True))\n'
        "while True: s.look(); time.sleep(0.05)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    until(lambda: note.exists() and note.read_text() != "", what="the part's start")
    parent.kill()
    parent.wait()
    until(lambda: not _runs(int(note.read_text())), what="the part's end")


def test_only_warnings_reach_the_terminal(watched: Watched) -> None:
    lines = ['{"level": "info", "event": "x"}', "plain", '{"level": "warning", "event": "careful", "job": "job_1"}']
    watched.add("a", f"print({chr(10).join(lines)!r}, flush=True); {SLEEP}")
    watched.look_until(lambda: bool(watched.relayed))
    assert watched.relayed == [("a", "warning: careful job=job_1")]


def _runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_part_named_after_a_repository_logs_into_the_folder(watched: Watched) -> None:
    watched.add("worker org/m", SLEEP)
    watched.add("worker ../../x y", SLEEP)
    assert sorted(path.name for path in watched.folder.iterdir()) == ["worker-.._.._x_y.log", "worker-org_m.log"]


def test_a_log_that_is_a_folder_is_named(watched: Watched) -> None:
    (watched.folder / "a.log").mkdir()
    with pytest.raises(PartFailedError, match=r"a\.log cannot be written: Is a directory"):
        watched.add("a", SLEEP)
