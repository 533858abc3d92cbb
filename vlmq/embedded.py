"""`vlmq serve`: the whole service on one machine, in one terminal, with nothing to install first."""

import json
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from types import FrameType

import requests
from rich.console import Console
from rich.markup import escape
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from migrations.schema import upgrade
from models.db import Database, utc_now
from models.worker import Worker, WorkerState, live_workers
from vlmq.config import Settings, environment_with
from vlmq.data_dir import DataDir, with_own_secret
from vlmq.embedded_redis import answers, redis_command
from vlmq.errors import ExplainedError
from vlmq.free_port import free_port
from vlmq.serve_report import print_ready, told_stage
from vlmq.supervisor import TICK_S, Part, PartFailedError, Supervisor

REDIS = "redis"
API = "api"
LIGHT_WORKER = "light worker"
# The exit status of a worker whose model cannot be loaded (EX_CONFIG of sysexits.h).
MODEL_FAILED = 78
# A start that takes longer is explained.
PATIENCE_S = 10.0
# Beyond the time that workers give their running jobs.
DRAIN_MARGIN_S = 8.0


class CannotServeError(ExplainedError):
    """The stack cannot start; the message says why and what to do."""


class _StopRequest:
    """Counts the requests to stop: after the first everything drains, after the second it is killed."""

    def __init__(self) -> None:
        self.count = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1

    @property
    def made(self) -> bool:
        return self.count > 0

    @property
    def urgent(self) -> bool:
        return self.count > 1


@dataclass
class _Stack:
    settings: Settings
    data: DataDir
    console: Console
    stop: _StopRequest
    own_redis: bool

    def __post_init__(self) -> None:
        self.started_at = utc_now()
        self.database = Database(self.settings.sqlalchemy_url)
        self.supervisor = Supervisor(
            environment_with(_environment(self.settings)), self.data.logs, notice=self.notice, relay=self.relay
        )

    def notice(self, text: str) -> None:
        self.console.print(f"[yellow]{escape(text)}[/]", highlight=False, soft_wrap=True)

    def relay(self, part: str, line: str) -> None:
        self.console.print(f"[dim]{escape(part)}[/]  {escape(line)}", highlight=False, soft_wrap=True)

    def run(self) -> int:
        try:
            self._start()
            while not self.stop.made:
                self._tick()
        except PartFailedError as error:
            for line in error.last_lines:
                self.console.print(f"  {line}", style="dim", markup=False, highlight=False, soft_wrap=True)
            message = f"[red]{escape(str(error))}[/]; the logs are in {escape(str(self.data.logs))}"
            self.console.print(message, highlight=False, soft_wrap=True)
            return 1
        finally:
            self._drain()
            self.database.dispose()
        return 0

    def _start(self) -> None:
        if self.own_redis:
            self.supervisor.add(Part(REDIS, redis_command(self.data), lambda _pid: answers(self.settings.redis_url)))
            self._tick_until(lambda: not self.supervisor.starting)
        if self.stop.made:
            return
        self._upgrade_database()
        self.supervisor.add(Part(API, _vlmq("api"), self._api_answers))
        self.supervisor.add(Part(LIGHT_WORKER, _vlmq("worker", "--light"), self._worker_is_ready))
        for model in self.settings.models:
            command = _vlmq("worker", "--model", model)
            hopeless = frozenset({MODEL_FAILED})
            self.supervisor.add(Part(worker_name(model), command, self._worker_is_ready, hopeless))
        self._tick_until(lambda: not self.supervisor.starting and self._service_is_ready())
        if not self.stop.made:
            print_ready(self.console, self.settings, self.settings.local_url, self._workers())

    def _tick(self) -> None:
        self.supervisor.look()
        time.sleep(TICK_S)

    def _tick_until(self, done: Callable[[], bool]) -> None:
        say_at = time.monotonic() + PATIENCE_S
        while not self.stop.made and not done():
            self._tick()
            if time.monotonic() > say_at and self.supervisor.starting:
                self.notice(f"still starting: {', '.join(self._how_far())}")
                say_at = time.monotonic() + 3 * PATIENCE_S

    def _how_far(self) -> list[str]:
        """What is still starting; a worker with its stage."""
        stages = {worker_name(worker.model): worker.details for worker in self._workers() if worker.model is not None}
        return [name + told_stage(stages.get(name, {})) for name in self.supervisor.starting]

    def _upgrade_database(self) -> None:
        try:
            upgrade(self.database.engine)
        except DBAPIError as error:
            raise CannotServeError(f"the database cannot be used: {str(error.orig).strip()}") from None

    def _drain(self) -> None:
        """The API stops accepting, the workers finish or give back their jobs, and Redis goes last."""
        workers = [LIGHT_WORKER, *(worker_name(model) for model in self.settings.models)]
        if not self.stop.urgent:
            self.console.print("stopping: running jobs finish or go back to the queue (Ctrl-C again: at once)")
        self.supervisor.signal(API, *workers)
        within_s = self.settings.timing.drain_s + DRAIN_MARGIN_S
        self.supervisor.end(*workers, within_s=within_s, cut_short=lambda: self.stop.urgent)
        self.supervisor.end(API, within_s=DRAIN_MARGIN_S, cut_short=lambda: self.stop.urgent)
        self.supervisor.signal(REDIS)
        self.supervisor.end(REDIS, within_s=10.0, cut_short=lambda: self.stop.urgent)
        self.console.print("stopped")

    def _api_answers(self, _pid: int) -> bool:
        return _answers(f"{self.settings.local_url}/healthz")

    def _service_is_ready(self) -> bool:
        return _answers(f"{self.settings.local_url}/readyz")

    def _worker_is_ready(self, pid: int) -> bool:
        return any(worker.pid == pid and worker.state is WorkerState.READY for worker in self._workers())

    def _workers(self) -> list[Worker]:
        """Those that this stack started. The rows of an earlier one may name the same process ids."""
        try:
            with self.database.read() as session:
                workers = live_workers(session, silence_s=self.settings.timing.lease_s)
        except SQLAlchemyError:
            return []
        return [worker for worker in workers if _is_mine(worker, self.started_at)]


def serve(settings: Settings, console: Console) -> int:
    """Run the stack until SIGINT, SIGTERM or SIGHUP; returns the exit status.

    Raises:
        CannotServeError, DataDirError: it cannot even begin.
    """
    data = DataDir(settings.data_dir)
    data.prepare()
    with data.locked():
        # An address that was set is used; only the default gives way to the embedded server.
        own_redis = "redis_url" not in settings.model_fields_set
        changes: dict[str, object] = {"data_dir": data.root, "port": _port(settings)}
        if own_redis:
            changes["redis_url"] = data.redis_url
        data.make_master_secret()
        own = with_own_secret(settings.model_copy(update=changes))
        stack = _Stack(own, data, console, _StopRequest(), own_redis)
        told = f"starting {', '.join(settings.models)}; data and logs are in {data.root}"
        console.print(told, markup=False, highlight=False, soft_wrap=True)
        return stack.run()


def worker_name(model: str) -> str:
    return f"worker {model}"


def _vlmq(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "vlmq", *arguments]


def _environment(settings: Settings) -> dict[str, str]:
    """What the children must know of `settings` beyond the environment that they inherit."""
    secret = settings.webhooks.secret
    return {
        "VLMQ_DATA_DIR": str(settings.data_dir),
        "DATABASE_URL": settings.sqlalchemy_url,
        "REDIS_URL": settings.redis_url,
        "VLMQ_HOST": settings.host,
        "VLMQ_PORT": str(settings.port),
        "VLMQ_MODELS": json.dumps({name: model.model_dump(mode="json") for name, model in settings.models.items()}),
        # The models are all said above, wherever they were read from.
        "VLMQ_MODELS_FILE": "",
        "VLMQ_DEV_ALLOW_PRIVATE_URLS": str(settings.dev_allow_private_urls),
        "VLMQ_WEBHOOKS__SECRET": secret.get_secret_value() if secret else "",
    }


def _port(settings: Settings) -> int:
    try:
        return free_port(settings.host, settings.port)
    except OSError as error:
        message = f"cannot listen on {settings.host}:{settings.port}: {(error.strerror or str(error)).lower()}"
        raise CannotServeError(f"{message}; name another --port, or see `vlmq doctor`") from None


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).ok
    except requests.RequestException:
        return False


def _is_mine(worker: Worker, since: datetime) -> bool:
    return worker.hostname == socket.gethostname() and worker.started_at >= since
