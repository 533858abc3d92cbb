"""Rows of a training batch while they are put together, and the batch's arrays in numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from checkpoints.architecture import MERGE, PATCH

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]
TOKEN_SIDE = PATCH * MERGE  # pixels


def patchify(frames: Bytes) -> Bytes:
    """Frames (pairs, 2, height, width, 3) as the processor's patches.

    Returns (pairs * patches, 3 * 2 * 8 * 8); 2 x 2 neighbours that will be merged into one
    token follow each other, as in Qwen2VLImageProcessor.patchify.
    """
    pairs, _, height, width, _ = frames.shape
    rows, columns = height // TOKEN_SIDE, width // TOKEN_SIDE
    blocks = frames.reshape(pairs, 2, rows, MERGE, PATCH, columns, MERGE, PATCH, 3)
    blocks = blocks.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return blocks.reshape(pairs * rows * columns * MERGE**2, 3 * 2 * PATCH * PATCH)


@dataclass
class Row:
    """One row while it is put together; `branch` is 0 for what all questions share."""

    ids: list[int] = field(default_factory=list)
    branch: list[int] = field(default_factory=list)
    places: list[Sequence[int]] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)  # branch number where `kind` is judged
    kinds: list[str] = field(default_factory=list)
    now: int = 0  # next position of the rotary embedding

    def add(self, ids: Sequence[int], branch: int, weight: float = 0.0, judged: bool = False) -> None:
        """Append text tokens; `weight` above 0 makes them targets."""
        self.ids += ids
        self.branch += [branch] * len(ids)
        self.weight += [weight] * len(ids)
        self.asked += [branch if judged else 0] * len(ids)
        self.places += [(self.now + i,) * 3 for i in range(len(ids))]
        self.now += len(ids)

    def see(self, pad: int, rows: int, columns: int, branch: int = 0) -> None:
        """Append the place holders of one picture, with their positions in time and space."""
        count, start = rows * columns, self.now
        self.ids += [pad] * count
        self.branch += [branch] * count
        self.weight += [0.0] * count
        self.asked += [0] * count
        self.places += [(start, start + r, start + c) for r in range(rows) for c in range(columns)]
        self.now += max(rows, columns)


def collate(rows: list[Row], frames: list[Bytes], labels: list[Ints], grid: tuple[int, int]) -> dict[str, Any]:
    """Arrays of rows padded on the right.

    ids, branch, asked (rows, length) int64; places (3, rows, length); weight (rows, length)
    float32; patches (all, 384) uint8; cells (tokens, 5); kinds: one list a row.
    """
    length = -(-max(len(row.ids) for row in rows) // 8) * 8
    shape = (len(rows), length)
    arrays: dict[str, Any] = {name: np.zeros(shape, dtype=np.int64) for name in ("ids", "branch", "asked")}
    arrays["weight"] = np.zeros(shape, dtype=np.float32)
    places = np.zeros((*shape, 3), dtype=np.int64)
    for index, row in enumerate(rows):
        size = len(row.ids)
        for name in ("ids", "branch", "asked", "weight"):
            arrays[name][index, :size] = getattr(row, name)
        places[index, :size] = row.places
        arrays["branch"][index, size:] = -1
    arrays["places"] = places.transpose(2, 0, 1)
    if frames:
        arrays["patches"] = patchify(np.stack(frames))
        arrays["cells"] = np.concatenate(labels)
    return {**arrays, "grid": grid, "kinds": [row.kinds for row in rows]}
