"""The small clean process from which decoding children are forked; started by `sandbox`.

It never sees a user's byte: a child takes its job straight from the worker, does it, and exits. The server ends when
the worker's end of the control socket closes, however the worker died; the kernel ends the children with the server.
"""

import ctypes
import gc
import os
import select
import signal
import socket
import sys
import traceback
from collections import deque
from dataclasses import dataclass
from typing import NoReturn

from media.backends import mapped_bytes, prepare
from media.child import serve_one_job
from media.preload import preload, rehearse
from vlmq.video_backends import VIDEO_BACKENDS, VideoBackend

REFILL_PAUSE_S = 0.02
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Waiting:
    """A child that waits for its job: our end of its channel, and a descriptor that tells when it dies."""

    channel: socket.socket
    pidfd: int

    def is_alive(self) -> bool:
        return not select.select([self.pidfd], [], [], 0)[0]

    def close(self) -> None:
        self.channel.close()
        os.close(self.pidfd)


@dataclass(frozen=True, slots=True)
class Kit:
    """What every child starts with: a sample to rehearse on, its memory limit, why it can decode no video if so."""

    sample: bytes
    memory_bytes: int
    problem: str | None


def serve(control: socket.socket, *, waiting_children: int, memory_bytes: int, backend: VideoBackend) -> None:
    """Hand out a waiting child for every byte on `control`, until that closes."""
    # Ended children vanish by themselves.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    sample = preload()
    before = mapped_bytes()
    problem = prepare(backend)
    kit = Kit(sample, memory_bytes + mapped_bytes() - before, problem)
    gc.freeze()
    waiting: deque[Waiting] = deque()
    while True:
        complete = len(waiting) >= waiting_children
        watched: list[socket.socket | int] = [control, *(child.pidfd for child in waiting)]
        # One child at a time, so that a request never waits for more than one fork; and while there are some, not at
        # once, so that forking does not take the processor from the child that has just got its job.
        pause = None if complete else REFILL_PAUSE_S if len(waiting) > 1 else 0
        ready = select.select(watched, [], [], pause)[0]
        if control in ready:
            if not control.recv(1):
                return
            child = _take(waiting) or _fork(kit)
            socket.send_fds(control, [b"."], [child.channel.fileno(), child.pidfd])
            child.close()
        elif ready:
            for child in [child for child in waiting if not child.is_alive()]:
                waiting.remove(child)
                child.close()
        elif not complete:
            waiting.append(_fork(kit))


def _take(waiting: deque[Waiting]) -> Waiting | None:
    while waiting:
        child = waiting.popleft()
        if child.is_alive():
            return child
        child.close()
    return None


def _fork(kit: Kit) -> Waiting:
    ours, theirs = socket.socketpair()
    server = os.getpid()
    pid = os.fork()
    if pid == 0:
        _live_as_child(theirs, server, kit)
    theirs.close()
    return Waiting(ours, os.pidfd_open(pid))


def _live_as_child(channel: socket.socket, server: int, kit: Kit) -> NoReturn:
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == server:
            # Channels of the other children are open here, too; and the worker must see ours close when we end.
            keep = channel.fileno()
            os.closerange(3, keep)
            os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))
            rehearse(kit.sample)
            serve_one_job(channel, kit.memory_bytes, kit.problem)
            status = 0
    except Exception:  # noqa: BLE001 - whatever it is, this process must not run on into the server's loop
        traceback.print_exc()
    finally:
        os._exit(status)


def main() -> None:
    """Read the control socket's descriptor, limits and backend from the command line, as `sandbox` writes them."""
    descriptor, waiting_children, memory_bytes = (int(argument) for argument in sys.argv[1:4])
    (backend,) = (name for name in VIDEO_BACKENDS if name == sys.argv[4])
    with socket.socket(fileno=descriptor) as control:
        serve(control, waiting_children=waiting_children, memory_bytes=memory_bytes, backend=backend)


if __name__ == "__main__":
    main()
