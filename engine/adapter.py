"""LoRA weights that are added to a checkpoint."""

import json
from importlib.util import find_spec
from typing import Any

from safetensors import SafetensorError, safe_open

from engine.source import Source
from vlmq.errors import ErrorCode, VlmqError

_WEIGHTS = "adapter_model.safetensors"


def add_adapter(model: Any, source: Source, *, merge: bool) -> Any:
    """The model with the adapter's weights: merged into its own, or beside them where those are quantized.

    Raises:
        VlmqError: MODEL_LOAD_FAILED: it is no LoRA adapter in safetensors, or one for another model.
    """
    if find_spec("peft") is None:
        raise _failed(source, "needs the package peft: pip install peft")
    from peft import LoraConfig, PeftModel

    _check_files(source)
    config = LoraConfig.from_pretrained(str(source.folder))
    config.inference_mode = True
    try:
        adapted = PeftModel(model, config)
        told = adapted.load_adapter(str(source.folder), "default", use_safetensors=True)
    except (ValueError, RuntimeError, KeyError) as error:  # no module of such a name, another shape
        raise _failed(source, "is made for another model: its weights do not fit this one") from error
    lacking = [name for name in told.missing_keys if "lora_" in name]
    if told.unexpected_keys or lacking:
        name = min([*told.unexpected_keys, *lacking])
        raise _failed(source, f"is made for another model: {name} does not fit this one")
    if not merge:
        return adapted.get_base_model()
    try:
        return adapted.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise _failed(source, "holds weights that are no numbers") from error


def _check_files(source: Source) -> None:
    """peft would unpickle other weights, and goes on without those whose file is damaged."""
    try:
        settings = json.loads((source.folder / "adapter_config.json").read_text(encoding="utf-8"))
        kind = settings["peft_type"]
    except FileNotFoundError:
        raise _failed(source, "has no adapter_config.json, so it is no adapter") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise _failed(source, "has an adapter_config.json that cannot be read") from None
    if kind != "LORA":
        raise _failed(source, f"is of the kind {kind}; only LORA is taken")
    if not (source.folder / _WEIGHTS).is_file():
        raise _failed(source, f"has no {_WEIGHTS}; pickled weights are not read")
    try:
        with safe_open(source.folder / _WEIGHTS, framework="pt") as weights:
            weights.keys()
    except (SafetensorError, OSError) as error:
        raise _failed(source, f"has a damaged {_WEIGHTS}") from error


def _failed(source: Source, problem: str) -> VlmqError:
    return VlmqError(ErrorCode.MODEL_LOAD_FAILED, f"The adapter {source.name} {problem}")
