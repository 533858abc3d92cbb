"""Parts of vlmq as real processes, on the settings of a test."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from vlmq.config import Settings

GPU_WORKER = (
    "import sys; from tasks.gpu_worker import run; from vlmq.config import get_settings as s; sys.exit(run(s(), {!r}))"
)
LIGHT_WORKER = (
    "import sys; from tasks.light_worker import run; from vlmq.config import get_settings as s; sys.exit(run(s()))"
)
API = "from api.server import serve; from vlmq.config import get_settings as s; serve(s())"


def environment(settings: Settings) -> dict[str, str]:
    """The environment in which a process reads these settings."""
    webhooks = settings.webhooks.model_dump(mode="json", exclude={"secret", "previous_secret"})
    for name in ("secret", "previous_secret"):
        secret = getattr(settings.webhooks, name)
        if secret is not None:
            webhooks[name] = secret.get_secret_value()
    values = {
        "VLMQ_DATA_DIR": str(settings.data_dir),
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "VLMQ_MODELS": json.dumps({name: model.model_dump(mode="json") for name, model in settings.models.items()}),
        "VLMQ_HOST": settings.host,
        "VLMQ_PORT": str(settings.port),
        "VLMQ_DEV_ALLOW_PRIVATE_URLS": str(settings.dev_allow_private_urls).lower(),
        "VLMQ_MAX_ATTEMPTS": str(settings.max_attempts),
        "VLMQ_LIMITS": settings.limits.model_dump_json(),
        "VLMQ_TIMING": settings.timing.model_dump_json(),
        "VLMQ_WEBHOOKS": json.dumps(webhooks),
    }
    return {**os.environ, **values}


class Part:
    """One process of a stack, restarted by hand; its output goes to a log that failures show."""

    def __init__(self, name: str, code: str, settings: Settings, folder: Path) -> None:
        self.name, self._code, self._environment = name, code, environment(settings)
        self.log_path = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Part":
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", self._code],
                env=self._environment,
                cwd=Path(__file__).parent.parent,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait()

    def terminate(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self, timeout: float = 30.0) -> int:
        if self.process is None:
            return 0
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"{self.name} did not end in {timeout} s:\n{self.log()}") from None

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")[-4000:]


def until(condition: Callable[[], bool], timeout: float = 30.0, *, what: str = "the condition") -> None:
    """Wait for a condition, and fail when it does not come true."""
    give_up_at = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < give_up_at, f"{what} did not come true in {timeout} s"
        time.sleep(0.02)
