"""How many bytes a model's weights take, before it is loaded and after."""

import copy
from typing import Any

import torch
from torch import nn


def held_bytes(model: nn.Module) -> int:
    """What the weights and buffers take in memory, each storage once.

    A quantized tensor is a shell around others, whose sizes are what counts; bitsandbytes hangs on the parameter what
    it needs to read it.
    """
    storages: dict[int, int] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        scales = [getattr(tensor, name, None) for name in ("CB", "SCB")]
        for part in (*_parts(tensor), *_state_tensors(getattr(tensor, "quant_state", None)), *scales):
            if part is not None:
                # What a device map left to the CPU is here without an address.
                storages[part.data_ptr() or -id(part)] = part.numel() * part.element_size()
    return sum(storages.values())


def outline(model_class: type[Any], config: Any, dtype: torch.dtype) -> nn.Module:
    """The model that `config` describes, with every shape and not one number."""
    with torch.device("meta"):
        # A class may write its choices into the configuration that it is given.
        model: nn.Module = model_class._from_config(copy.deepcopy(config), dtype=dtype)
    return model


def expected_bytes(outlined: nn.Module, element_size: float | None = None) -> int:
    """What an outlined model will take, with `element_size` bytes for each number that quantization makes smaller.

    Quantization leaves the embeddings, the norms, the biases and the output layer as they are.
    """
    small: set[int] = set()
    if element_size is not None:
        head = _output_layer(outlined)
        linears = [module for module in outlined.modules() if isinstance(module, nn.Linear) and module is not head]
        small = {id(linear.weight) for linear in linears}
    # Meta tensors have no address; tied weights are one object.
    tensors = {id(tensor): tensor for tensor in (*outlined.parameters(), *outlined.buffers())}
    return sum(
        int(tensor.numel() * (element_size if number in small and element_size else tensor.element_size()))
        for number, tensor in tensors.items()
    )


def _output_layer(model: Any) -> nn.Module | None:
    layer: nn.Module | None = model.get_output_embeddings()
    return layer


def _parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    return [part for name in tensor.__tensor_flatten__()[0] for part in _parts(getattr(tensor, name))]


def _state_tensors(state: Any) -> list[torch.Tensor]:
    if state is None:
        return []
    own = [value for value in vars(state).values() if isinstance(value, torch.Tensor)]
    return own + _state_tensors(getattr(state, "state2", None))
