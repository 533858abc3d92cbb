"""The training forward pass: the same modules as transformers', run over uniform batches.

transformers' vision tower loops over pictures and its text model takes no branches; with one
grid for all pictures of a batch both become plain batched attention.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import (
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
)

from checkpoints.scenes import COLORS, DIRECTIONS, PLACES, RADII, SHAPES

LABELS = tuple(len(known) + 1 for known in (SHAPES, COLORS, RADII, PLACES, DIRECTIONS))


class CellHead(nn.Module):
    """Reads what `batches.cells` tells of each picture token; only used while training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.read = nn.Linear(width, sum(LABELS))

    def forward(self, seen: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """`seen` (tokens, width), `cells` (tokens, 5) -> mean loss, share of right tokens."""
        scores = self.read(seen).float().split(LABELS, dim=-1)
        # Most tokens look at nothing; the others count more.
        weight = torch.where(cells[:, 0] > 0, 1.0, 0.3)
        losses = [F.cross_entropy(s, c, reduction="none") for s, c in zip(scores, cells.T, strict=False)]
        loss = (sum(losses, torch.zeros(())) * weight).sum() / weight.sum()
        right = torch.stack([s.argmax(-1) == c for s, c in zip(scores, cells.T, strict=False)]).all(0)
        taken = cells[:, 0] > 0
        return loss, right[taken].float().mean()


@lru_cache(maxsize=64)
def _geometry(side: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Indices and weights into the learned positions, and rotary positions, for one grid."""
    grid = torch.tensor([[1, height, width]])
    indices, weights = get_vision_interpolation_indices_and_weights(
        grid, num_grid_per_side=side, mode="bilinear", align_corners=True, spatial_merge_size=2
    )
    return indices, weights, get_vision_position_ids(grid, 2)


def see(model: Qwen3VLForConditionalGeneration, patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """Normalised patches (pictures * patches, 384) of one grid -> tokens (all, width)."""
    visual: Any = model.model.visual
    indices, weights, places = (t.to(patches.device) for t in _geometry(8, *grid))
    count = grid[0] * grid[1]
    kernel = visual.patch_embed.proj
    hidden = F.linear(patches, kernel.weight.flatten(1), kernel.bias)
    hidden = hidden.view(-1, count, kernel.out_channels)
    hidden = hidden + (visual.pos_embed(indices) * weights[:, :, None]).sum(1)
    cos, sin = visual.rotary_pos_emb(hidden, places)
    for block in visual.blocks:
        attention = block.attn
        normed = block.norm1(hidden)
        mixed = attention.qkv(normed).unflatten(-1, (3, attention.num_heads, -1))
        query, key, value = mixed.unbind(2)
        query, key = apply_rotary_pos_emb_vision(query, key, cos, sin)
        looked = F.scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
        hidden = hidden + attention.proj(looked.transpose(1, 2).flatten(2))
        hidden = hidden + block.mlp(block.norm2(hidden))
    tokens: Tensor = visual.merger(hidden.flatten(0, 1))
    return tokens


def branch_mask(branch: Tensor) -> Tensor:
    """Branch numbers (rows, length) -> (rows, 1, length, length): who may attend to whom."""
    mine, yours = branch[:, :, None], branch[:, None, :]
    past = torch.ones(branch.shape[1:] * 2, dtype=torch.bool, device=branch.device).tril()
    return (((yours == 0) | (mine == yours)) & past)[:, None]


def hidden_states(model: Qwen3VLForConditionalGeneration, batch: dict[str, Any], seen: Tensor | None) -> Tensor:
    """Last hidden states (rows, length, width) for a batch of `batches.collate`, as tensors."""
    ids = batch["ids"]
    embedded = model.get_input_embeddings()(ids)
    if seen is not None:
        config = model.config
        pads = (ids == config.image_token_id) | (ids == config.video_token_id)
        embedded = embedded.masked_scatter(pads[..., None], seen.to(embedded.dtype))
    output = model.model.language_model(
        inputs_embeds=embedded,
        position_ids=batch["places"],
        attention_mask=branch_mask(batch["branch"]),
        use_cache=False,
    )
    states: Tensor = output.last_hidden_state
    return states


def tensors(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The arrays of a batch as tensors; the patches' pixels in -1..1."""
    moved = {
        name: torch.from_numpy(value).to(device) if hasattr(value, "dtype") else value for name, value in batch.items()
    }
    if "patches" in moved:
        moved["patches"] = moved["patches"].float() / 127.5 - 1
    return moved


def answer_loss(
    model: Qwen3VLForConditionalGeneration, batch: dict[str, Any], states: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted cross entropy summed over the answers' tokens, its weight, and the target mask.

    Only the positions before answer tokens go through the large output layer.
    """
    wanted = batch["weight"][:, 1:] > 0
    logits = model.lm_head(states[:, :-1][wanted]).float()
    target = batch["ids"][:, 1:][wanted]
    weight = batch["weight"][:, 1:][wanted]
    loss = (F.cross_entropy(logits, target, reduction="none") * weight).sum()
    return loss, weight.sum(), logits.argmax(-1) == target


def judge(batch: dict[str, Any], right: Tensor) -> list[tuple[str, bool]]:
    """Kind and exact match of every branch; greedy decoding would say the same.

    `right` tells of each answer token, in the order of `answer_loss`, whether the model's
    first choice after the true tokens before it is the true one.
    """
    wanted = batch["weight"][:, 1:] > 0
    asked = batch["asked"][:, 1:][wanted]
    row = wanted.nonzero()[:, 0]
    wrong = {(r, a) for r, a, ok in zip(row.tolist(), asked.tolist(), right.tolist(), strict=False) if a and not ok}
    return [
        (kind, (r, number) not in wrong)
        for r, kinds in enumerate(batch["kinds"])
        for number, kind in enumerate(kinds, 1)
    ]
