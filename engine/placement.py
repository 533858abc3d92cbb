"""Where a model runs and in which numbers: device, dtype and attention, chosen once and with the reason."""

import importlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers.utils.import_utils import is_flash_attn_2_available

from engine.types import CheckpointSettings
from vlmq.errors import ErrorCode, VlmqError

logger = logging.getLogger(__name__)

FLASH = "flash_attention_2"
_HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class Placement:
    """`attn_implementation` None lets transformers choose among its own; a `device_map` goes before the `device`."""

    device: str
    dtype: torch.dtype
    attn_implementation: str | None
    attn_reason: str
    device_map: str | dict[str, int | str] | None = None


def place(settings: CheckpointSettings, checkpoint_dtype: torch.dtype | None, model_class: type[Any]) -> Placement:
    """Settle what the settings leave to us.

    Raises:
        VlmqError: MODEL_LOAD_FAILED when something was asked for by name and cannot be used.
    """
    device = _device(settings.device)
    dtype = _dtype(settings.dtype, device, checkpoint_dtype)
    implementation, reason = _attention(settings.attn_implementation, device, dtype, model_class)
    return Placement(device, dtype, implementation, reason, _device_map(settings.device_map, device))


def _device_map(wanted: str | Mapping[str, int | str] | None, device: str) -> str | dict[str, int | str] | None:
    if wanted is None or isinstance(wanted, str):
        return wanted
    there = torch.cuda.device_count() if device == "cuda" else 0
    missing = [number for number in wanted.values() if isinstance(number, int) and number >= there]
    if missing:
        problem = f"The device_map names GPU {missing[0]}, but this machine has {there}, counted from 0"
        raise VlmqError(ErrorCode.MODEL_LOAD_FAILED, problem)
    return dict(wanted)


def _device(wanted: str) -> str:
    if wanted == "cpu":
        return "cpu"
    problem = _cuda_problem()
    if problem is None:
        return "cuda"
    if wanted == "cuda":
        raise VlmqError(ErrorCode.MODEL_LOAD_FAILED, f"The device is set to cuda, but {problem}")
    logger.warning("running on the CPU, which is slow: %s", problem)
    return "cpu"


def _cuda_problem() -> str | None:
    if not torch.cuda.is_available():
        return "no CUDA device can be used here"
    try:
        torch.zeros(1, device="cuda").item()
    except RuntimeError as error:  # a driver that is too old, a device in exclusive use, an unsupported architecture
        return f"the CUDA device refuses work: {str(error).splitlines()[0]}"
    return None


def _dtype(wanted: str, device: str, of_checkpoint: torch.dtype | None) -> torch.dtype:
    if wanted != "auto":
        dtype: torch.dtype = getattr(torch, wanted)
        return dtype
    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    # CPUs without half-precision units are many times slower in half precision.
    return torch.float32 if of_checkpoint is None or of_checkpoint in _HALF else of_checkpoint


def _attention(wanted: str, device: str, dtype: torch.dtype, model_class: type[Any]) -> tuple[str | None, str]:
    """The implementation's name, and why it was chosen.

    Raises:
        VlmqError: MODEL_LOAD_FAILED when flash-attn was asked for by name and can run nothing here.
    """
    if wanted not in ("auto", FLASH):
        return wanted, "set by name"
    problem = _flash_problem(device, dtype, model_class)
    if wanted == FLASH:
        if problem is not None:
            raise VlmqError(ErrorCode.MODEL_LOAD_FAILED, f"The attention is set to {FLASH}, but {problem}")
        return FLASH, "set by name"
    return (None, problem) if problem is not None else (FLASH, "flash-attn is installed and the GPU is new enough")


def _flash_problem(device: str, dtype: torch.dtype, model_class: type[Any]) -> str | None:
    if device != "cuda":
        return "flash-attn needs a CUDA device"
    if not getattr(model_class, "_supports_flash_attn", False):
        return "the architecture does not work with flash-attn"
    if min(torch.cuda.get_device_capability(number)[0] for number in range(torch.cuda.device_count())) < 8:
        return "flash-attn needs a GPU of compute capability 8.0 or newer"
    if dtype not in _HALF:
        return "flash-attn needs bfloat16 or float16"
    return _flash_package_problem()


def _flash_package_problem() -> str | None:
    if not is_flash_attn_2_available():
        return "the flash-attn package is not installed"
    try:
        # Built for another torch or CUDA, it is installed and of no use.
        importlib.import_module("flash_attn")
    except (ImportError, OSError):
        return "the flash-attn package was built for another torch, and cannot be imported"
    return None
