"""What is trained when: the phases, their batches, and the rates of learning."""

from __future__ import annotations

from dataclasses import dataclass

from checkpoints.batches import Plan

SEED = 20_000_000
MUON_RATE, ADAM_RATE = 0.02, 2e-3


@dataclass(frozen=True)
class Schedule:
    """How many steps each phase takes."""

    see: int = 700
    single: int = 200
    whole: int = 3600

    @property
    def total(self) -> int:
        """Steps of all phases."""
        return self.see + self.single + self.whole

    def plans(self, step: int, weights: dict[str, float]) -> list[Plan]:
        """The batches of one step; their gradients add up."""
        seed = SEED + 10 * step
        if step < self.see:
            jitter = 0.035 * min(1, step / (0.5 * self.see))
            square = step < 0.5 * self.see
            return [Plan("image", 32, seed + i, square=square, jitter=jitter, branches=0) for i in range(2)]
        if step < self.see + self.single:
            return [Plan("image", 20, seed + i, single=True) for i in range(2)]
        rows = (("image", 12), ("images", 6), ("video", 9), ("text", 1))
        return [Plan(f, n, seed + i, weights=weights, twins=0.5) for i, (f, n) in enumerate(rows)]

    def rate(self, step: int) -> float:
        """Share of the full learning rate: a warm-up, a plateau, and a line down to zero."""
        return min(1.0, (step + 1) / 50, (self.total - step) / (0.4 * self.whole))

    def frozen(self, step: int) -> bool:
        """Whether the vision side stays as it is: it is right long before the text side."""
        return step > self.total - 0.4 * self.whole

    def dense(self, step: int) -> float:
        """Weight of the dense target's loss."""
        if step < self.see + self.single:
            return 1.0 if step < self.see else 0.3
        return 0.3


def exams() -> list[Plan]:
    """Batches to watch the training with: new scenes, the same each time."""
    families = ("image",) * 7 + ("images",) * 5 + ("video",) * 7 + ("text",)
    return [Plan(family, 16, 7_000_000 + i, unseen=None, branches=12) for i, family in enumerate(families)]
