"""Decoding in processes that may crash, hang or be taken over without harm to the worker."""

import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from media.jobs import STARTED, ImageFacts, ImageJob, VideoFacts, VideoJob
from media.pixels import Pixels, map_pixels
from vlmq.cutoff import Cutoff
from vlmq.errors import ErrorCode, VlmqError
from vlmq.video_backends import VideoBackend

WAITING_CHILDREN = 4
SERVER_REPLY_S = 15.0
# Importing torch from a cold disk.
SLOW_SERVER_REPLY_S = 60.0
MAX_ANSWER_BYTES = 16 * 2**20
# A child that something else killed must not cost the user's job; one that crashes on its input does so again.
TRIES = 2
MAX_CHILDREN = 10

_ROOT = Path(__file__).resolve().parent.parent
_log = logging.getLogger(__name__)


class ChildDiedError(Exception):
    """A child ended without an answer; `started` says whether it had touched its input."""

    def __init__(self, *, started: bool) -> None:
        super().__init__(started)
        self.started = started


@dataclass(frozen=True, slots=True)
class Child:
    """A process that waits for its job or works at it, and the channel to it."""

    channel: socket.socket
    pidfd: int

    def end(self) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def kill(self) -> None:
        self.end()
        self.channel.close()
        os.close(self.pidfd)


class Sandbox:
    """Children for decoding, forked by a server process that is started on demand and again when it is gone.

    Threads may share one. Nothing is left running when the process that holds it ends, however it ends.
    """

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        # One for each library that was asked for; torch and its like are for those who name them.
        self._servers: dict[VideoBackend, _Server] = {}

    def start(self) -> None:
        """Start the usual server ahead of its first use, without waiting for it."""
        with self._lock:
            self._started("pyav")

    def image(self, job: ImageJob, source: BinaryIO, timeout_s: float, cutoff: Cutoff) -> tuple[Pixels, ImageFacts]:
        """Decode the image in `source`, within `timeout_s` seconds and until the `cutoff`.

        Raises:
            VlmqError: `image_invalid`, `image_too_large`, `media_timeout`, or `unavailable` when no child comes up.
        """
        pixels, facts = self._run("image", asdict(job), source, timeout_s, cutoff)
        return pixels, ImageFacts(**facts)

    def video(self, job: VideoJob, source: BinaryIO, timeout_s: float, cutoff: Cutoff) -> tuple[Pixels, VideoFacts]:
        """Decode the video in `source`; raises like `image`, with `video_…`, and `invalid_request` for times beyond it.

        Also `unsupported_parameter` when the worker lacks the job's backend.
        """
        pixels, facts = self._run("video", asdict(job), source, timeout_s, cutoff)
        times, indices = tuple(facts.pop("timestamps")), tuple(facts.pop("frame_indices"))
        return pixels, VideoFacts(timestamps=times, frame_indices=indices, **facts)

    def close(self) -> None:
        """End the server and with it all children."""
        with self._lock:
            while self._servers:
                self._servers.popitem()[1].stop()

    def _run(
        self, kind: str, job: dict[str, Any], source: BinaryIO, timeout_s: float, cutoff: Cutoff
    ) -> tuple[Pixels, dict[str, Any]]:
        timeout_s = cutoff.seconds(timeout_s)
        request = json.dumps({"kind": kind, "job": job, "timeout_s": timeout_s}).encode()
        deadline = None
        tries = 0
        for _ in range(MAX_CHILDREN):
            child = self.take_child(job.get("backend", "pyav"))
            deadline = deadline or time.monotonic() + timeout_s
            try:
                with cutoff.cutting(child.end):
                    return _ask(child, request, source, deadline)
            except ChildDiedError as death:
                if cutoff.was_cut:
                    raise VlmqError(ErrorCode.MEDIA_TIMEOUT, f"Decoding the {kind} was ended.") from None
                _log.warning("a decoding child died %s its %s", "over" if death.started else "before", kind)
                tries += death.started
            except TimeoutError:
                message = f"Decoding the {kind} took longer than {timeout_s:g} s."
                raise VlmqError(ErrorCode.MEDIA_TIMEOUT, message) from None
            finally:
                child.kill()
            if tries == TRIES:
                code = ErrorCode.IMAGE_INVALID if kind == "image" else ErrorCode.VIDEO_INVALID
                raise VlmqError(code, f"The {kind} is damaged: decoding it crashed.")
        raise _unavailable()

    def take_child(self, backend: VideoBackend = "pyav") -> Child:
        """A child of the caller's own, which must `kill` it.

        Raises:
            VlmqError: UNAVAILABLE.
        """
        with self._lock:
            for _ in range(2):
                try:
                    return self._started(backend).take()
                except OSError:
                    _log.warning("the decoding server is gone; starting another")
                    if (gone := self._servers.pop(backend, None)) is not None:
                        gone.stop()
        raise _unavailable()

    def _started(self, backend: VideoBackend) -> "_Server":
        if backend not in self._servers:
            self._servers[backend] = _Server(self._memory_bytes, backend)
        return self._servers[backend]


class _Server:
    def __init__(self, memory_bytes: int, backend: VideoBackend) -> None:
        self._control, theirs = socket.socketpair()
        usual = backend == "pyav"
        self._control.settimeout(SERVER_REPLY_S if usual else SLOW_SERVER_REPLY_S)
        waiting = WAITING_CHILDREN if usual else 1
        arguments = [str(argument) for argument in (theirs.fileno(), waiting, memory_bytes, backend)]
        # Where torchcodec looks for FFmpeg; decord wants any PATH.
        variables = {} if usual else {"LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", ""), "PATH": os.defpath}
        with theirs:
            self._process = subprocess.Popen(
                # Pillow warns about odd files; those who sent them hear of it, the log need not.
                [sys.executable, "-W", "ignore", "-m", "media.decoder_server", *arguments],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # No secrets in there, and no threads but its own.
                env={"PYTHONPATH": str(_ROOT), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"} | variables,
                # Signals to the worker's group are for the worker, which closes us when it is done.
                start_new_session=True,
            )

    def take(self) -> Child:
        """A child of its own for the caller.

        Raises:
            OSError: the server is gone or does not answer.
        """
        self._control.sendall(b".")
        message, descriptors, _, _ = socket.recv_fds(self._control, 1, 2, socket.MSG_CMSG_CLOEXEC)
        if not message or len(descriptors) != 2:
            raise ConnectionResetError
        return Child(socket.socket(fileno=descriptors[0]), descriptors[1])

    def stop(self) -> None:
        self._control.close()
        self._process.kill()
        self._process.wait()


def _ask(child: Child, request: bytes, source: BinaryIO, deadline: float) -> tuple[Pixels, dict[str, Any]]:
    with ExitStack() as stack:
        target = os.memfd_create("pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        stack.callback(os.close, target)
        answer = exchange(child, request, source, target, deadline)
        # A child that was taken over cannot pull the memory away from under the arrays.
        fcntl.fcntl(target, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        return map_pixels(target, tuple(answer["shape"])), answer["facts"]


def exchange(child: Child, request: bytes, source: BinaryIO, target: int, deadline: float) -> dict[str, Any]:
    """Give the child its job and wait for its answer.

    Raises:
        VlmqError: what the child says is wrong with its input.
        ChildDiedError: it ended without an answer.
        TimeoutError: the deadline passed.
    """
    started = False
    try:
        socket.send_fds(child.channel, [request], [source.fileno(), target])
        child.channel.shutdown(socket.SHUT_WR)
        started = _read(child.channel, deadline, 1) == STARTED
        answer: dict[str, Any] = json.loads(_read(child.channel, deadline, MAX_ANSWER_BYTES))
    except TimeoutError:
        raise
    except (OSError, ValueError) as error:
        raise ChildDiedError(started=started) from error
    if "error" in answer:
        _raise_refusal(answer["error"])
    return answer


def _read(channel: socket.socket, deadline: float, limit: int) -> bytes:
    """All that comes, up to `limit` bytes."""
    answer = bytearray()
    while len(answer) < limit:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        channel.settimeout(left)
        chunk = channel.recv(min(64 * 1024, limit - len(answer)))
        if not chunk:
            break
        answer += chunk
    return bytes(answer)


def _unavailable() -> VlmqError:
    return VlmqError(ErrorCode.UNAVAILABLE, "Media cannot be decoded right now.")


def _raise_refusal(error: dict[str, Any]) -> None:
    if error.get("detail"):
        _log.info("media refused: %s", error["detail"])
    raise VlmqError(ErrorCode(error["code"]), str(error["message"]))
