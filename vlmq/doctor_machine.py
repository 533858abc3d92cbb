"""What vlmq needs of the machine: packages, a GPU, room on the disk, its port."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import requests

from vlmq.config import Settings
from vlmq.finding import Finding
from vlmq.free_port import free_port

GIB = 2**30
LITTLE_DISK = 5 * GIB
NO_DISK = GIB // 4

SERVICE_PACKAGES = ("flask", "sqlalchemy", "celery", "redis", "gunicorn", "gevent", "pydantic", "requests")
WORKER_PACKAGES = ("torch", "transformers", "accelerate", "av", "pillow", "optimum-quanto")


def look_at_packages() -> Iterator[Finding]:
    if sys.platform != "linux":
        advice = "media are decoded with what only Linux has; use a virtual machine or a container"
        yield Finding("system", "fail", sys.platform, advice)
    yield Finding("python", "ok", sys.version.split()[0])
    for subject, names, level, advice in (
        ("packages", SERVICE_PACKAGES, "fail", "install requirements/api.txt"),
        (
            "worker",
            WORKER_PACKAGES,
            "warn",
            "GPU workers need requirements/worker.txt; the API and light workers do not",
        ),
    ):
        found = {name: _version(name) for name in names}
        missing = [name for name, installed in found.items() if installed is None]
        if missing:
            yield Finding(
                subject, "fail" if level == "fail" else "warn", f"not installed: {', '.join(missing)}", advice
            )
        else:
            yield Finding(subject, "ok", ", ".join(f"{name} {installed}" for name, installed in found.items()))


def look_at_gpu() -> Iterator[Finding]:
    program = shutil.which("nvidia-smi")
    query = ["--query-gpu=name,memory.total,memory.free,driver_version", "--format=csv,noheader"]
    lines: list[str] = []
    if program is not None:
        try:
            answer = subprocess.run([program, *query], capture_output=True, text=True, timeout=20, check=True)
            lines = answer.stdout.strip().splitlines()
        except (subprocess.SubprocessError, OSError):
            yield Finding("gpu", "warn", "nvidia-smi fails", "run it by hand; the driver may need a restart")
            return
    if not lines:
        yield Finding("gpu", "warn", "none", "models run on the CPU, which is right for the bundled one only")
        return
    for line in lines:
        name, total, free, driver = (field.strip() for field in line.split(","))
        yield Finding("gpu", "ok", f"{name}, {free} of {total} free, driver {driver}")
    installed = _version("flash-attn")
    if installed is not None:
        yield Finding("attention", "ok", f"flash-attn {installed}")
    else:
        advice = (
            "long videos gain from flash-attn; it is built on a machine with the CUDA toolkit: pip install flash-attn"
        )
        yield Finding("attention", "ok", "torch's scaled_dot_product_attention", advice)


def look_at_disk(root: Path) -> Finding:
    if root.exists() and not root.is_dir():
        return Finding("disk", "fail", f"{root} is not a folder", "name another --data-dir")
    existing = next(folder for folder in (root, *root.parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    message = f"{free / GIB:.1f} GiB free for {root}"
    if free < LITTLE_DISK:
        advice = "uploads, the database and Redis are kept there; make room or name another --data-dir"
        return Finding("disk", "fail" if free < NO_DISK else "warn", message, advice)
    return Finding("disk", "ok", message)


def look_at_port(settings: Settings) -> Finding:
    subject, where = f"port {settings.port}", f"{settings.host}:{settings.port}"
    try:
        free_port(settings.host, settings.port)
        return Finding(subject, "ok", "free")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
    try:
        answer = requests.get(f"{settings.local_url}/readyz", timeout=3)
        if answer.headers.get("Content-Type", "").startswith("application/json"):
            state = "ready" if answer.ok else "not ready; see its log"
            return Finding(subject, "ok" if answer.ok else "warn", f"a service answers and is {state}")
    except requests.RequestException:
        pass
    return Finding(subject, "fail", f"{where}: {reason}{_listener(settings.port)}", "stop it, or set VLMQ_PORT")


def _listener(port: int) -> str:
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return ""
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
            try:
                return f", by process {connection.pid} ({psutil.Process(connection.pid).name()})"
            except psutil.NoSuchProcess:
                return ""
    return ""


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
