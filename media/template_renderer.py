"""Rendering users' Jinja from the worker's side: a child for each, and what its end means."""

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from media.sandbox import MAX_CHILDREN, TRIES, ChildDiedError, Sandbox, exchange
from media.template import CPU_S, TIMEOUT_S, TemplateJob, as_bytes
from vlmq.cutoff import Cutoff
from vlmq.errors import ErrorCode, VlmqError

_log = logging.getLogger(__name__)


class TemplateRenderer:
    """Renders in children of a sandbox. Threads may share one."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def render(self, job: TemplateJob, *, param: str, cutoff: Cutoff | None = None) -> list[str]:
        """The texts; within `TIMEOUT_S`, and until the `cutoff`.

        Raises:
            VlmqError: TEMPLATE_ERROR, TEMPLATE_FORBIDDEN or TEMPLATE_LIMIT with `param`; UNAVAILABLE when no child
                comes up or the cutoff ends it.
        """
        try:
            return self._render(as_bytes(job), cutoff or Cutoff())
        except VlmqError as error:
            error.param = param
            raise

    def _render(self, job: bytes, cutoff: Cutoff) -> list[str]:
        request = json.dumps({"kind": "template", "timeout_s": TIMEOUT_S}).encode()
        deaths = 0
        for _ in range(MAX_CHILDREN):
            child = self._sandbox.take_child()
            began = time.monotonic()
            try:
                with cutoff.cutting(child.end), _in_memory(job) as source, _in_memory(b"") as unused:
                    deadline = began + TIMEOUT_S
                    texts: list[str] = exchange(child, request, source, unused.fileno(), deadline)["texts"]
                    return texts
            except ChildDiedError as death:
                if cutoff.was_cut:
                    raise VlmqError(ErrorCode.UNAVAILABLE, "Rendering the template was ended.") from None
                if death.started and time.monotonic() - began >= CPU_S:
                    raise _too_slow() from None
                _log.warning("a child died over its template" if death.started else "a child died idle")
                deaths += death.started
            except TimeoutError:
                raise _too_slow() from None
            finally:
                child.kill()
            if deaths == TRIES:
                raise VlmqError(ErrorCode.TEMPLATE_LIMIT, "Rendering the template crashed.")
        raise VlmqError(ErrorCode.UNAVAILABLE, "Templates cannot be rendered right now.")


def _too_slow() -> VlmqError:
    return VlmqError(ErrorCode.TEMPLATE_LIMIT, f"Rendering the template takes more than {CPU_S} s.")


@contextmanager
def _in_memory(content: bytes) -> Iterator[BinaryIO]:
    with os.fdopen(os.memfd_create("template", os.MFD_CLOEXEC), "w+b") as file:
        file.write(content)
        file.flush()
        yield file
