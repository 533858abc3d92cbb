"""Loads a served model, reports what it takes as a line of JSON, and ends. `vlmq doctor --model` runs it."""

import json
import logging
import resource
import sys
import time
from typing import Any

from engine.load import load_engine
from engine.types import LoadingStage
from tasks.gpu_worker import checkpoint_settings, describe
from vlmq.config import Settings, get_settings
from vlmq.errors import VlmqError


def examine(settings: Settings, name: str) -> dict[str, Any]:
    """`{"description": …, "load_s": …, "peak_rss": …, "gpus": […]}`, or `{"error": …}`."""
    gpus = _gpus(settings, name)
    started = time.monotonic()
    try:
        engine = load_engine(checkpoint_settings(settings, settings.models[name]), on_progress=_StageNews())
    except VlmqError as error:
        return {"error": error.message}
    load_s = time.monotonic() - started
    engine.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"description": describe(engine), "load_s": load_s, "peak_rss": peak, "gpus": gpus}


class _StageNews:
    """Says on standard error what takes so long."""

    def __init__(self) -> None:
        self._stage = ""

    def __call__(self, stage: LoadingStage, _fraction: float | None) -> None:
        if stage != self._stage:
            self._stage = stage
            sys.stderr.write(f"{stage.replace('_', ' ')}\n")


def _gpus(settings: Settings, name: str) -> list[dict[str, Any]]:
    """The GPUs as they are before the model is loaded; none for an engine that uses none."""
    if settings.models[name].engine == "scripted":
        return []
    import torch

    if not torch.cuda.is_available():
        return []
    found = []
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        found.append({"name": torch.cuda.get_device_name(number), "free": free, "total": total})
    return found


def main() -> None:
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    # Whatever a library prints goes elsewhere: the report is the last line.
    report = examine(get_settings(), sys.argv[1])
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
