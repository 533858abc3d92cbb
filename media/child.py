"""A decoding child: one job, then gone. It can open nothing, and has limits on memory, time and what it writes."""

import errno
import json
import math
import os
import resource
import signal
import socket
from contextlib import suppress
from dataclasses import asdict
from typing import Any, BinaryIO

from media.animation import decode_animation
from media.image import decode_image
from media.jobs import STARTED, ImageJob, VideoJob, VideoSampling
from media.pixels import PixelSink
from media.template import render, template_limits
from media.video import decode_video
from vlmq.errors import ErrorCode, VlmqError
from vlmq.sniff import ANIMATED_TYPES, MediaType

_MAX_REQUEST_BYTES = 64 * 1024


def serve_one_job(channel: socket.socket, memory_bytes: int, problem: str | None) -> None:
    """Wait for a job, do it, answer, return. A `problem` of the backend is the answer to every job."""
    message, descriptors, _, _ = socket.recv_fds(channel, _MAX_REQUEST_BYTES, 2, socket.MSG_CMSG_CLOEXEC)
    if len(descriptors) != 2:
        return
    source, target = descriptors
    while chunk := channel.recv(_MAX_REQUEST_BYTES):
        message += chunk
    request = json.loads(message)
    is_template = request["kind"] == "template"
    # The worker kills at the deadline; the limit on processor time is for the case that it cannot any more.
    cpu_s = math.ceil(request["timeout_s"]) * (os.cpu_count() or 1) + 1
    _give_up_rights(*(template_limits() if is_template else (memory_bytes, cpu_s)))
    channel.sendall(STARTED)
    with os.fdopen(source, "rb") as stream:
        # The offset is shared with the worker, and with a child that tried before.
        stream.seek(0)
        if is_template:
            answer = render(stream)
        elif problem is None:
            answer = _decode(request, stream, PixelSink(target))
        else:
            answer = _refusal(ErrorCode.UNSUPPORTED_PARAMETER, problem, None)
    # Nobody may be listening any more.
    with suppress(OSError):
        channel.sendall(json.dumps(answer).encode())
        # The end of our memory takes longer than the end of the answer.
        channel.shutdown(socket.SHUT_WR)


def _give_up_rights(memory_bytes: int, cpu_s: int) -> None:
    for limit, value in (
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def _decode(request: dict[str, Any], source: BinaryIO, sink: PixelSink) -> dict[str, Any]:
    is_image = request["kind"] == "image"
    job = request["job"] | {"media_type": MediaType(request["job"]["media_type"])}
    try:
        if is_image:
            facts = asdict(decode_image(ImageJob(**job), source, sink))
        else:
            job["sampling"] = VideoSampling(**job["sampling"])
            decode = decode_animation if job["media_type"] in ANIMATED_TYPES else decode_video
            facts = asdict(decode(VideoJob(**job), source, sink))
    except VlmqError as error:
        return _refusal(error.code, error.message, error.__cause__)
    except MemoryError as error:
        if is_image:
            return _refusal(ErrorCode.IMAGE_TOO_LARGE, "The image needs too much memory to decode.", error)
        message = "The video needs too much memory to decode; ask for fewer or smaller frames."
        return _refusal(ErrorCode.VIDEO_TOO_LARGE, message, error)
    except Exception as error:  # noqa: BLE001 - parsers of hostile bytes raise whatever they like
        if isinstance(error, OSError) and error.errno == errno.EMFILE:
            # Something was to be imported that `preload` does not name: our fault, not the file's.
            return _refusal(ErrorCode.INTERNAL_ERROR, "Decoding failed on our side.", error)
        code, noun = (ErrorCode.IMAGE_INVALID, "image") if is_image else (ErrorCode.VIDEO_INVALID, "video")
        return _refusal(code, f"The {noun} is damaged: it cannot be decoded as {job['media_type']}.", error)
    return {"shape": sink.shape, "facts": facts}


def _refusal(code: ErrorCode, message: str, error: BaseException | None) -> dict[str, Any]:
    # The detail is for the log, not for the user.
    detail = None if error is None else f"{type(error).__name__}: {error}"[:500]
    return {"error": {"code": code, "message": message, "detail": detail}}
