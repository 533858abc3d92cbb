"""Why a checkpoint could not be loaded, in words that go on after its name."""

import errno

import torch
from safetensors import SafetensorError

UNEXPLAINED = "could not be loaded; the log says why"
_NO_ROOM = "does not fit into the memory; quantize it, or spread it over several GPUs with device_map"


def explain(error: BaseException) -> str:
    """What the exception, or one behind it, means to whoever serves the checkpoint."""
    chain = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for kinds, explanation in _KINDS:
        if any(isinstance(link, kinds) for link in chain):
            return explanation
    if any(isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT) for link in chain):
        return "could not be loaded: the disk is full"
    texts = [str(link) for link in chain]
    for marks, explanation in _MARKS:
        if any(mark in text for mark in marks for text in texts):
            return explanation
    return UNEXPLAINED


# The first that fits.
_KINDS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    ((torch.OutOfMemoryError, MemoryError), _NO_ROOM),
    (SafetensorError, "has weights that cannot be read: a file is truncated or damaged"),
    (PermissionError, "has files that this user may not read"),
    (ImportError, "needs a package that is not installed; the log names it"),
)
# For what the libraries raise as a bare RuntimeError, ValueError or OSError.
_MARKS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("can't allocate memory", "CUDA error: out of memory", "CUDA out of memory"), _NO_ROOM),
    (("attn_implementation",), "does not work with the attention implementation that is set"),
    (
        ("device_map that contains a CPU or disk", "dispatched on the CPU or the disk"),
        "does not fit on the GPUs, and quantized weights cannot stay on the CPU",
    ),
    (("offload_folder", "offload_dir"), "does not fit on the GPUs and the CPU that the device_map may use"),
    (("size mismatch", "ignore_mismatched_sizes"), "has weights of other shapes than its config.json says"),
    (("safetensors",), "has no weights in safetensors files"),
    (("trust_remote_code",), "needs code from its repository, which is never run"),
    (("does not recognize this architecture", "model type"), "is of a type that this transformers does not know"),
    (("is not a valid JSON", "JSONDecodeError"), "has a configuration file that is not JSON"),
    (("config.json",), "has no config.json, so it is no transformers checkpoint"),
)
