"""Muon, the optimizer for weight matrices: momentum made orthogonal by Newton-Schulz steps.

After Keller Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024).
Here matrices of one shape share each multiplication, which matters for a model this small.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """(count, rows, columns) -> the same with all singular values near 1."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x: Tensor = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(Optimizer):
    """For matrices only; `lr` is the change of a square matrix's singular values per step."""

    def __init__(self, params: Iterable[Tensor], lr: float = 0.02, momentum: float = 0.95, decay: float = 0.0) -> None:
        super().__init__(list(params), {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Nesterov momentum, made orthogonal, scaled for the matrix's shape."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape.setdefault(matrix.shape, []).append(matrix)
            for shape, matrices in by_shape.items():
                pushed = []
                for matrix in matrices:
                    gradient = matrix.grad
                    assert gradient is not None
                    state = self.state[matrix]
                    average = state.setdefault("average", torch.zeros_like(matrix))
                    average.lerp_(gradient, 1 - group["momentum"])
                    pushed.append(gradient.lerp(average, group["momentum"]))
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                for matrix, change in zip(matrices, orthogonal(torch.stack(pushed)), strict=False):
                    matrix.mul_(1 - group["lr"] * group["decay"])
                    matrix.add_(change, alpha=-group["lr"] * scale)
