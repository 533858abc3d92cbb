"""How much memory there is for a model's weights."""

from pathlib import Path

import psutil
import torch

_CGROUP = Path("/sys/fs/cgroup")


def free_bytes(device: str) -> int:
    """What is free on the GPU ("cuda"), or on the machine and within its container's limit ("cpu")."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    return min(int(psutil.virtual_memory().available), _left_in_container(_CGROUP))


def allocated_bytes() -> int | None:
    """What torch holds on all GPUs; None without one."""
    if not torch.cuda.is_available():
        return None
    return sum(torch.cuda.memory_allocated(number) for number in range(torch.cuda.device_count()))


def _left_in_container(cgroup: Path) -> int:
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
        # The page cache counts as used, and gives way.
        cached = next(line for line in (cgroup / "memory.stat").read_text().splitlines() if line.startswith("file "))
        return 2**63 if limit == "max" else int(limit) - used + int(cached.split()[1])
    except (OSError, ValueError, StopIteration):
        return 2**63
