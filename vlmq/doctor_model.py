"""`vlmq doctor --model`: loads a checkpoint in a process of its own, and says what it takes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from vlmq.config import Settings, environment_with
from vlmq.finding import Finding
from vlmq.served_model import ServedModel


def examine_model(settings: Settings, name: str, model: ServedModel) -> Iterator[Finding]:
    """Whether it loads; which device, numbers and attention it gets; its memory before and after quantization."""
    subject = f"model {name}"
    report = _load(settings, name, model)
    if "error" in report:
        yield Finding(subject, "fail", report["error"])
        return
    told = report["description"]
    origin = f"{told['architecture']}, revision {told['revision']}, loaded in {report['load_s']:.1f} s"
    yield Finding(subject, "ok", origin)
    yield Finding("device", "ok", f"{told['device']}, {told['dtype']}")
    yield Finding("attention", "ok", told["attn_implementation"], told["attn_reason"])
    yield from _memory(told, report)
    yield Finding("context", "ok", f"{told['max_context']:,} tokens")
    yield Finding("takes", "ok", ", ".join(told["modalities"]))


def _memory(told: dict[str, Any], report: dict[str, Any]) -> Iterator[Finding]:
    before, after = told["weight_bytes_before"], told["weight_bytes"]
    if told["quantization"] is None:
        yield Finding("weights", "ok", f"{after:,} bytes, not quantized")
    else:
        share = f"{1 - after / before:.0%} less" if before > after else "no less"
        yield Finding("weights", "ok", f"{before:,} bytes before {told['quantization']}, {after:,} after: {share}")
    if told["device_bytes"] is not None:
        yield Finding("gpu memory", "ok", f"{told['device_bytes']:,} bytes allocated for the weights")
    for gpu in report["gpus"]:
        room = f"{gpu['free']:,} of {gpu['total']:,} bytes were free"
        needs = f"the weights take {after:,}"
        if told["device"] == "cpu" or report["gpus"][1:]:
            yield Finding(gpu["name"], "ok", f"{room}; {needs}")
        elif gpu["free"] - after < gpu["total"] // 10:
            yield Finding(
                gpu["name"], "warn", f"{room}; {needs}", "little is left for prompts: quantize, or use more GPUs"
            )
        else:
            yield Finding(gpu["name"], "ok", f"{room}; {needs}, and it fits")
    yield Finding("process", "ok", f"{report['peak_rss']:,} bytes of main memory at most")


def _load(settings: Settings, name: str, model: ServedModel) -> dict[str, Any]:
    """What tasks.examine_model reports; the log goes to standard error, as far as it is a warning."""
    models = json.dumps({name: model.model_dump(mode="json")})
    changes = {"VLMQ_MODELS": models, "VLMQ_MODELS_FILE": "", "VLMQ_DATA_DIR": str(settings.data_dir)}
    command = [sys.executable, "-m", "tasks.examine_model", name]
    child = subprocess.run(command, env=environment_with(changes), stdout=subprocess.PIPE, text=True, check=False)
    lines = child.stdout.splitlines()
    try:
        report = json.loads(lines[-1])
        return dict(report)
    except (IndexError, ValueError):
        if child.returncode == -9:
            return {"error": "the process was killed while it loaded the model: there was not enough memory"}
        return {"error": f"the process that loaded it ended with status {child.returncode}; see above"}
