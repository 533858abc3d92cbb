"""The API's server: gunicorn with gevent, so that thousands of streams and long polls wait in one process."""

import json
import logging
import os
import re
import shutil
import tempfile
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast

import gevent
from gevent import monkey
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http.errors import (
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
)
from gunicorn.workers.base import Worker
from gunicorn.workers.ggevent import GeventWorker

from api.schemas.problem import document
from vlmq.config import Settings
from vlmq.errors import ErrorCode, VlmqError

# Open connections of one process, most of them streams that wait.
MAX_CONNECTIONS = 10_000
METRICS = "vlmq-metrics-"
# Streams and long polls end at once on SIGTERM; this is for what else is under way.
GRACE_S = 5
# A loop that stands still for this long is taken for hung.
HUNG_S = 60


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Call it before anything else opens connections or starts threads."""
    # Before the application and the drivers below it are imported: psycopg looks once whether it is patched.
    monkey.patch_all()
    # prometheus_client reads this when it is first imported, with the application. The folder is deleted in the
    # parent's last hook: a `with` would end in every child, too.
    metrics_dir = _make_metrics_dir()
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics_dir
    # It tells of every look at the schema, and /readyz looks often.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    import api.app  # noqa: F401 - here, so that all processes share its memory

    _Server(settings, metrics_dir).run()  # type: ignore[no-untyped-call]


def _make_metrics_dir() -> str:
    """A folder on this machine, named for this process; those of processes that were killed are removed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{METRICS}*"):
        owner = re.fullmatch(rf"{METRICS}(\d+)-.+", folder.name)
        if owner is not None and not _is_another(int(owner[1])):
            shutil.rmtree(folder, ignore_errors=True)
    return tempfile.mkdtemp(prefix=f"{METRICS}{os.getpid()}-")


def _is_another(pid: int) -> bool:
    """Whether another process has this id now."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return pid != os.getpid()


class _Logger(Logger):
    """Leaves format and place of gunicorn's lines to the process's own logging."""

    def setup(self, cfg: Config) -> None:  # noqa: ARG002
        self.error_log = logging.getLogger("gunicorn.error")
        self.error_log.setLevel(logging.INFO)
        self.error_log.propagate = True
        self.access_log = logging.getLogger("gunicorn.access")


class _Worker(GeventWorker):
    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        # Where the next request begins is unknown after a malformed body; the answer should say that it is the last.
        says_close = req.should_close
        req.should_close = lambda: req.body.failed or says_close()
        return super().handle_request(listener_name, req, sock, addr)  # type: ignore[no-untyped-call]

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        if not isinstance(exc, ParseException) or isinstance(exc, InvalidResponseHeader | InvalidResponseHeaderName):
            super().handle_error(req, client, addr, exc)  # type: ignore[no-untyped-call]
            return
        # Gunicorn would answer in HTML. The connection is closed by the caller.
        self.log.info("a request that cannot be read: %s", exc)
        with suppress(OSError):
            client.sendall(_unreadable(exc))

    def handle_exit(self, sig: int, frame: Any) -> None:
        super().handle_exit(sig, frame)  # type: ignore[no-untyped-call]
        # Not from within a signal handler, which must not block.
        gevent.spawn(_close, self.wsgi)


class _Server(BaseApplication):
    def __init__(self, settings: Settings, metrics_dir: str) -> None:
        self._settings, self._metrics_dir = settings, metrics_dir
        super().__init__()  # type: ignore[no-untyped-call]

    def load_config(self) -> None:
        host = self._settings.host
        options = {
            "bind": f"{f'[{host}]' if ':' in host else host}:{self._settings.port}",
            "workers": self._settings.api_processes,
            "worker_class": _Worker,
            "worker_connections": MAX_CONNECTIONS,
            "logger_class": _Logger,
            "graceful_timeout": GRACE_S,
            "timeout": HUNG_S,
            "keepalive": 15,
            "control_socket_disable": True,
            "proc_name": "vlmq api",
            "child_exit": _forget_metrics,
            "on_exit": self._clean_up,
        }
        config = cast(Config, self.cfg)
        for name, value in options.items():
            config.set(name, value)  # type: ignore[no-untyped-call]

    def load(self) -> Any:
        from api.app import create_app

        return create_app(self._settings)

    def _clean_up(self, _arbiter: Arbiter) -> None:
        shutil.rmtree(self._metrics_dir, ignore_errors=True)


def _unreadable(problem: ParseException) -> bytes:
    """The whole answer to what is no HTTP request, or more than one may be."""
    status, message = 400, "This is no HTTP request that can be read: its first line or a header is malformed."
    if isinstance(problem, LimitRequestLine):
        status, message = 414, "The URL is too long."
    elif isinstance(problem, LimitRequestHeaders):
        status, message = 431, "The headers are too many or too long."
    body = json.dumps(document(VlmqError(ErrorCode.INVALID_REQUEST, message, status=status))).encode()
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nConnection: close\r\n"
        f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _close(app: Any) -> None:
    from api.services import EXTENSION

    app.extensions[EXTENSION].close()


def _forget_metrics(_arbiter: Arbiter, worker: Worker) -> None:
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)
