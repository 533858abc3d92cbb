"""Weights in fewer bits: which kinds there are, and whether one works on this machine."""

import logging
import os
import shutil
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, QuantoConfig

from vlmq.errors import ErrorCode, VlmqError

logger = logging.getLogger(__name__)

# Quanto's kernels take whole tiles of this size.
_TILE = 128


@dataclass(frozen=True, slots=True)
class Quantization:
    """How the weights are made smaller. `element_size` is what a weight takes then, in bytes."""

    name: str
    element_size: float
    config: Any


def quantization(name: str, device: str, dtype: torch.dtype) -> Quantization:
    """The kind with this name, tried on the device that it will run on.

    Raises:
        VlmqError: MODEL_LOAD_FAILED when there is no such kind, or it does not work here; it says what would help.
    """
    library, _, bits = name.partition("-")
    if library == "bitsandbytes" and bits in _BITSANDBYTES:
        if find_spec("bitsandbytes") is None:
            raise _refused(name, "needs the package bitsandbytes: pip install bitsandbytes")
        if bits == "4bit" and device == "cpu":
            raise _refused(name, "needs a CUDA device; on a CPU take quanto-int8")
        return Quantization(name, _BITSANDBYTES[bits], _bitsandbytes_config(bits, dtype))
    if library != "quanto" or bits not in _QUANTO:
        known = [f"quanto-{bits}" for bits in _QUANTO] + [f"bitsandbytes-{bits}" for bits in _BITSANDBYTES]
        raise _refused(name, f"is not known; there are {', '.join(known)}")
    _try_quanto(name, bits, device, dtype)
    return Quantization(name, _QUANTO[bits], QuantoConfig(weights=bits))


def _bitsandbytes_config(bits: str, dtype: torch.dtype) -> BitsAndBytesConfig:
    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )


def _try_quanto(name: str, bits: str, device: str, dtype: torch.dtype) -> None:
    """Run one layer: quanto compiles kernels when they are first used, which would be in the middle of loading."""
    # Its import looks for a CUDA toolkit, and complains where there is none: only those who use it should hear that.
    quanto: Any = import_module("optimum.quanto")
    _show_ninja()
    layer = nn.Sequential(nn.Linear(_TILE, _TILE, device=device, dtype=dtype))
    try:
        quanto.quantize(layer, weights=getattr(quanto, f"q{bits}"))
        quanto.freeze(layer)
        with torch.no_grad():  # as generate() runs it
            finite = layer(torch.ones(1, _TILE, device=device, dtype=dtype)).isfinite().all().item()
    except Exception as error:
        logger.warning("%s was tried and failed", name, exc_info=True)
        if missing := _missing_tools(device):
            need = f"compiles its kernels on the machine and finds no {' and no '.join(missing)}"
            raise _refused(name, f"{need}; install what is missing, or take quanto-int8") from error
        raise _refused(name, "does not work on this device; the log says why. quanto-int8 may") from error
    if not finite:
        raise _refused(name, f"gives no numbers in {str(dtype).removeprefix('torch.')} on this device")


def _show_ninja() -> None:
    """Quanto brings ninja along, as a program beside this Python; torch looks for it in the PATH."""
    programs = Path(sys.executable).parent
    if shutil.which("ninja") is None and (programs / "ninja").is_file():
        os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), str(programs)])


def _missing_tools(device: str) -> list[str]:
    tools = {"ninja": ("ninja",), "C++ compiler": ("c++", "g++", "clang++")}
    if device == "cuda":
        tools["nvcc (the CUDA toolkit)"] = ("nvcc",)
    return [tool for tool, programs in tools.items() if not any(shutil.which(program) for program in programs)]


def _refused(name: str, problem: str) -> VlmqError:
    return VlmqError(ErrorCode.MODEL_LOAD_FAILED, f"The quantization {name} {problem}")


# What a weight takes, in bytes.
_QUANTO = {"int8": 1.0, "int4": 0.5, "float8": 1.0}
_BITSANDBYTES = {"8bit": 1.0, "4bit": 0.5}
