"""Train tiny-vlm from nothing: `python -m checkpoints.train`.

Three phases, counted in steps: the vision side alone under a dense target; pictures of one
thing; then the whole world, with the dense target fading. A killed run goes on from its last
state when it is started again. Batches depend on the seed and the step only.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from transformers import AutoModelForImageTextToText

from checkpoints import architecture, forward
from checkpoints.architecture import load_processor
from checkpoints.batches import Plan, Writer
from checkpoints.muon import Muon
from checkpoints.schedule import ADAM_RATE, MUON_RATE, SEED, Schedule, exams

STATE = Path(__file__).parent / ".training"
EVALUATE_EVERY, SAVE_EVERY = 100, 50  # steps
AVERAGE = 0.99  # decay of the running average of the weights that is kept in the end


_writer: list[Writer] = []


def _start_worker(folder: Path) -> None:
    torch.set_num_threads(1)
    _writer.append(Writer(load_processor(folder).tokenizer))


def _make(plans: list[Plan]) -> list[dict[str, Any]]:
    return [_writer[0].batch(plan) for plan in plans]


class Trainer:
    """Model, optimizers and schedule, with what is needed to stop and go on."""

    def __init__(self, schedule: Schedule, device: torch.device, threads: int) -> None:
        torch.manual_seed(SEED)
        self.schedule, self.device = schedule, device
        self.base = STATE / "base"
        if not (self.base / "config.json").exists():
            processor = architecture.make_processor()
            config = architecture.make_config(processor.tokenizer)
            architecture.save(architecture.make_model(config), processor, self.base)
        model: Any = AutoModelForImageTextToText.from_pretrained(self.base)
        self.model = model.to(device)
        self.head = forward.CellHead(self.model.config.text_config.hidden_size).to(device)
        named = dict(self.model.named_parameters())
        matrices = [n for n, p in named.items() if p.ndim == 2 and "embed" not in n]
        rest = [p for n, p in named.items() if n not in matrices]
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon([named[n] for n in matrices], MUON_RATE),
            torch.optim.AdamW([*rest, *self.head.parameters()], ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        self.parameters = [*named.values(), *self.head.parameters()]
        # Each thread takes a batch of its own: on a busy machine that loses far less than
        # threads that wait for each other inside of every small operation.
        self.threads = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        self.average = {n: p.detach().clone() for n, p in named.items()}
        self.step, self.seconds = 0, 0.0
        self.weights: dict[str, float] = {}
        self.best = 0.0  # the highest mean accuracy so far; its weights are published
        if (STATE / "state.pt").exists():
            self._restore(torch.load(STATE / "state.pt", map_location=device))

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.head.load_state_dict(state["head"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=False):
            optimizer.load_state_dict(saved)
        self.average = state["average"]
        self.step, self.seconds = state["step"], state["seconds"]
        self.weights, self.best = state["weights"], state["best"]

    def save(self) -> None:
        """Write the state; the old one stays until the new one is complete."""
        state = {
            "model": self.model.state_dict(),
            "head": self.head.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "average": self.average,
            "step": self.step,
            "seconds": self.seconds,
            "weights": self.weights,
            "best": self.best,
        }
        torch.save(state, STATE / "state.new")
        (STATE / "state.new").replace(STATE / "state.pt")

    def gradients(
        self, arrays: dict[str, Any], whole: float, tokens: int
    ) -> tuple[tuple[Tensor | None, ...], list[float]]:
        """One batch's share of the gradients, and of the losses that `train_step` returns.

        `whole` is the weight of all answers of the step, `tokens` the number of its cells.
        """
        batch, seen = forward.tensors(arrays, self.device), None
        total, losses = torch.zeros((), device=self.device), [0.0, 0.0, 0.0]
        if "patches" in batch and self.schedule.frozen(self.step):
            with torch.no_grad():
                seen = forward.see(self.model, batch["patches"], batch["grid"])
        elif "patches" in batch:
            seen = forward.see(self.model, batch["patches"], batch["grid"])
            loss, right = self.head(seen, batch["cells"])
            part = len(batch["cells"]) / tokens
            total = loss * self.schedule.dense(self.step) * part
            losses[1:] = [loss.item() * part, right.item() * part]
        if self.step >= self.schedule.see:
            states = forward.hidden_states(self.model, batch, seen)
            loss, _, _ = forward.answer_loss(self.model, batch, states)
            total = total + loss / whole
            losses[0] = loss.item() / whole
        return torch.autograd.grad(total, self.parameters, allow_unused=True), losses

    def train_step(self, batches: list[dict[str, Any]]) -> list[float]:
        """One update; returns the answers' loss, the dense loss and its accuracy."""
        share = self.schedule.rate(self.step)
        for optimizer, rate in zip(self.optimizers, (MUON_RATE, ADAM_RATE), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * share
        whole = max(1e-6, float(sum(batch["weight"].sum() for batch in batches)))
        tokens = max(1, sum(len(batch.get("cells", ())) for batch in batches))
        jobs = [self.threads.submit(self.gradients, b, whole, tokens) for b in batches]
        parts = [job.result() for job in jobs]
        for parameter, *found in zip(self.parameters, *(part[0] for part in parts), strict=True):
            real = [gradient for gradient in found if gradient is not None]
            parameter.grad = torch.stack(real).sum(0) if real else None
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        decay = min(AVERAGE, (self.step + 1) / (self.step + 10))
        for name, parameter in self.model.named_parameters():
            self.average[name].lerp_(parameter.detach(), 1 - decay)
        self.step += 1
        return [sum(losses) for losses in zip(*(part[1] for part in parts), strict=True)]

    def swap(self) -> None:
        """Exchange the weights with their running average."""
        for name, parameter in self.model.named_parameters():
            kept = parameter.detach().clone()
            parameter.data.copy_(self.average[name])
            self.average[name].copy_(kept)

    @torch.no_grad()
    def evaluate(self, batches: list[dict[str, Any]]) -> dict[str, tuple[int, float]]:
        """Exact match of the averaged weights on unseen scenes: kind -> (asked, share right)."""
        self.swap()
        marks: dict[str, list[bool]] = defaultdict(list)
        for arrays in batches:
            batch, seen = forward.tensors(arrays, self.device), None
            if "patches" in batch:
                seen = forward.see(self.model, batch["patches"], batch["grid"])
            states = forward.hidden_states(self.model, batch, seen)
            _, _, right = forward.answer_loss(self.model, batch, states)
            for kind, ok in forward.judge(batch, right):
                marks[kind].append(ok)
        self.swap()
        return {kind: (len(m), sum(m) / len(m)) for kind, m in sorted(marks.items())}

    def publish(self) -> None:
        """Put the averaged weights where the checkpoint is, so that it loads at any moment."""
        self.swap()
        architecture.save(self.model, load_processor(self.base), STATE / "export")
        self.swap()
        architecture.HOME.mkdir(exist_ok=True)
        for path in (STATE / "export").iterdir():
            path.replace(architecture.HOME / path.name)


def stream(pool: Any, trainer: Trainer, ahead: int = 6) -> Iterator[list[dict[str, Any]]]:
    """The batches of all steps to come, made by the pool a few steps ahead."""
    coming: deque[Any] = deque()
    step = trainer.step
    while step < trainer.schedule.total or coming:
        while step < trainer.schedule.total and len(coming) < ahead:
            plans = trainer.schedule.plans(step, trainer.weights)
            coming.append(pool.apply_async(_make, (plans,)))
            step += 1
        yield coming.popleft().get()


def main() -> None:
    """Train to the end of the schedule and publish the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--whole", type=int, default=Schedule.whole, help="steps of phase three")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw scenes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    STATE.mkdir(exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = Trainer(Schedule(whole=options.whole), device, options.threads)
    console = Console()
    text = TextColumn("{task.description}")
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    spawn = multiprocessing.get_context("spawn")
    with (
        spawn.Pool(options.workers, _start_worker, (trainer.base,)) as pool,
        Progress(*columns, console=console) as progress,
    ):
        task = progress.add_task("training", total=trainer.schedule.total, completed=trainer.step)
        exam = pool.apply(_make, (exams(),))
        smooth = [0.0, 0.0, 0.0]
        for batches in stream(pool, trainer):
            began = time.monotonic()
            losses = trainer.train_step(batches)
            trainer.seconds += time.monotonic() - began
            smooth = [s + 0.05 * (new - s) for s, new in zip(smooth, losses, strict=False)]
            state = f"loss {smooth[0]:.3f} dense {smooth[1]:.3f} ({smooth[2]:.0%})"
            progress.update(task, completed=trainer.step, description=state)
            last = trainer.step == trainer.schedule.total
            if trainer.step % EVALUATE_EVERY == 0 or last:
                line = f"step {trainer.step} after {trainer.seconds / 60:.1f} min: {state}"
                if trainer.step > trainer.schedule.see:
                    marks = trainer.evaluate(exam)
                    trainer.weights = {k: 0.15 + 5 * (1 - m) for k, (_, m) in marks.items()}
                    mean = sum(m for _, m in marks.values()) / len(marks)
                    line += f" mean {mean:.3f} " + json.dumps({k: round(m, 2) for k, (_, m) in marks.items()})
                    if last or mean > trainer.best:
                        trainer.best = mean
                        trainer.publish()
                console.print(line, soft_wrap=True)
            if last or trainer.step % SAVE_EVERY == 0:
                trainer.save()


if __name__ == "__main__":
    main()
