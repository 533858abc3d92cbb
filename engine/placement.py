"""Where a model runs and in which numbers: device, dtype and attention, chosen once and with the reason."""

import logging
from dataclasses import dataclass
from typing import Any

import torch
from transformers.utils.import_utils import is_flash_attn_2_available

from engine.types import CheckpointSettings
from vlmq.errors import ErrorCode, VlmqError

logger = logging.getLogger(__name__)

_HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class Placement:
    """`attn_implementation` None lets transformers choose among its own."""

    device: str
    dtype: torch.dtype
    attn_implementation: str | None
    attn_reason: str


def place(settings: CheckpointSettings, checkpoint_dtype: torch.dtype | None, model_class: type[Any]) -> Placement:
    """Settle what the settings leave to us.

    Raises:
        VlmqError: MODEL_LOAD_FAILED when CUDA was asked for by name and cannot be used.
    """
    device = _device(settings.device)
    implementation, reason = _attention(settings.attn_implementation, device, model_class)
    return Placement(device, _dtype(settings.dtype, device, checkpoint_dtype), implementation, reason)


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


def _attention(wanted: str, device: str, model_class: type[Any]) -> tuple[str | None, str]:
    if wanted != "auto":
        return wanted, "set by name"
    if device != "cuda":
        return None, "flash-attn needs a CUDA device"
    if not getattr(model_class, "_supports_flash_attn", False):
        return None, "the architecture does not work with flash-attn"
    if torch.cuda.get_device_capability()[0] < 8:
        return None, "flash-attn needs a GPU of compute capability 8.0 or newer"
    if not is_flash_attn_2_available():
        return None, "the flash-attn package is not installed"
    return "flash_attention_2", "flash-attn is installed and the GPU is new enough"
