"""Measure tiny-vlm on scenes that it was never trained on: `python -m checkpoints.evaluate`.

Everything goes the way of a user's job: PNG, JPEG and H.264 files of common sizes, decoded,
through the checkpoint's own processor and greedy `generate`. Every question is asked a second
time with another scene's media, which shows what can be guessed without seeing.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from transformers import AutoModelForImageTextToText

from checkpoints import questions
from checkpoints.architecture import HOME, load_processor
from checkpoints.mp4 import Video, read_mp4, write_mp4
from checkpoints.questions import KINDS, WEAK, Question
from checkpoints.scenes import Clip, Scene, random_clip, random_scene

SIZES = ((512, 512), (512, 512), (640, 480), (640, 480), (256, 256), (1280, 720), (480, 640))
CLIP_SIZES = ((320, 240), (256, 256))
COLUMNS = (
    "kind", "family", "n", "exact_match", "unseen_combinations", "swapped_media", "chance",
)  # fmt: skip
GOAL = 0.95
BATCH = 20


Media = Image.Image | Video


@dataclass(frozen=True)
class Item:
    """A question and the media that it is about."""

    question: Question
    media: tuple[Media, ...]


def _image(rng: Random, image: Image.Image) -> Image.Image:
    """The image after a PNG or a JPEG file."""
    file = io.BytesIO()
    if rng.random() < 0.5:
        image.save(file, "JPEG", quality=rng.randint(60, 95))
    else:
        image.save(file, "PNG")
    return Image.open(file).convert("RGB")


def _film(rng: Random, clip: Clip, folder: Path) -> Video:
    """The clip after an MP4 file."""
    fps, seconds, size = rng.choice((4, 8, 10)), rng.uniform(1.5, 4), rng.choice(CLIP_SIZES)
    write_mp4(clip.frames(round(fps * seconds), size), fps, folder / "clip.mp4")
    return read_mp4(folder / "clip.mp4")


def make_item(rng: Random, kind: str, folder: Path, unseen: bool | None = None) -> Item:
    """A question of `kind` about new media, which went through files.

    With `unseen` they hold a combination of colour, shape and place that training never drew.
    """
    family = KINDS[kind][0]
    while True:
        scenes: list[Scene] = []
        clip = random_clip(rng, unseen=unseen)
        if family == "text":
            asked = questions.text_questions(rng)
        elif family == "video":
            asked = questions.clip_questions(clip, rng)
        elif family == "images":
            number = rng.choice((2, 2, 3))
            scenes = [random_scene(rng, things=rng.choice((1, 1, 2)), unseen=unseen) for _ in range(number)]
            asked = questions.images_questions(scenes, rng)
        else:
            scenes = [random_scene(rng, unseen=unseen)]
            asked = questions.image_questions(scenes[0], rng)
        fitting = [q for q in asked if q.kind == kind]
        if fitting:
            media: list[Media] = [_image(rng, s.draw(rng.choice(SIZES))) for s in scenes]
            if family == "video":
                media.append(_film(rng, clip, folder))
            return Item(rng.choice(fitting), tuple(media))


def messages(item: Item) -> list[dict[str, Any]]:
    """The chat up to the last user turn, with the media before the first question."""
    chat: list[dict[str, Any]] = []
    for index, (user, assistant) in enumerate(item.question.turns):
        seen = item.media if index == 0 else ()
        parts = [{"type": "video" if isinstance(m, Video) else "image"} for m in seen]
        chat.append({"role": "user", "content": [*parts, {"type": "text", "text": user}]})
        chat.append({"role": "assistant", "content": assistant})
    return chat[:-1]


class Model:
    """The checkpoint, loaded as anyone would."""

    def __init__(self, folder: Path = HOME) -> None:
        self.processor: Any = load_processor(folder)
        self.model: Any = AutoModelForImageTextToText.from_pretrained(folder)

    @torch.inference_mode()
    def answer(self, items: Sequence[Item]) -> list[str]:
        """Greedy answers to a batch of questions."""
        prompts = [self.processor.apply_chat_template(messages(i), add_generation_prompt=True) for i in items]
        media = [m for item in items for m in item.media]
        videos = [m for m in media if isinstance(m, Video)]
        options: dict[str, Any] = {}
        if images := [m for m in media if isinstance(m, Image.Image)]:
            options["images"] = images
        if videos:
            options["videos"] = [v.frames for v in videos]
            options["video_metadata"] = [v.metadata for v in videos]
            options["do_sample_frames"] = False
        batch = self.processor(text=prompts, padding=True, return_tensors="pt", **options)
        batch = batch.to(self.model.device)
        output = self.model.generate(**batch, max_new_tokens=48)
        new = output[:, batch["input_ids"].shape[1] :]
        texts: list[str] = self.processor.batch_decode(new, skip_special_tokens=True)
        return texts


def exact(model: Model, asked: Sequence[Item]) -> float:
    """Share of answers that equal the truth letter by letter."""
    right = 0
    for start in range(0, len(asked), BATCH):
        part = asked[start : start + BATCH]
        truth = [item.question.answer for item in part]
        right += sum(a == t for a, t in zip(model.answer(part), truth, strict=True))
    return right / len(asked)


def measure(model: Model, kind: str, count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Accuracy of one kind: on new scenes, on new combinations, and by guessing."""
    family, guess = KINDS[kind]
    rng = Random(f"{kind} {seed}")
    items = [make_item(rng, kind, folder) for _ in range(count)]
    common = Counter(item.question.answer for item in items).most_common(1)[0][1]
    marks = {"family": family, "n": count, "exact_match": exact(model, items)}
    if family != "text":
        strict = [make_item(rng, kind, folder, unseen=True) for _ in range(count)]
        others = items[1:] + items[:1]
        swapped = [Item(i.question, o.media) for i, o in zip(items, others, strict=True)]
        marks |= {
            "unseen_combinations": exact(model, strict),
            "swapped_media": exact(model, swapped),
        }
    return {**marks, "chance": max(guess, common / count), "advertised": kind not in WEAK}


def main() -> int:
    """Print the table, write accuracy.json, and fail when a kind is under the goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20 questions a kind, not 100")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=HOME)
    options = parser.parse_args()
    count = 20 if options.quick else 100
    model, table = Model(options.folder), Table(*COLUMNS)
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in track(KINDS, "asking"):
            marks = found[kind] = measure(model, kind, count, options.seed, Path(folder))
            shares = [marks.get(m) for m in COLUMNS[3:]]
            cells = ["" if share is None else f"{share:.1%}" for share in shares]
            table.add_row(kind, marks["family"], str(count), *cells)
    Console().print(table)
    if not options.quick:
        (options.folder / "accuracy.json").write_text(json.dumps(found, indent=2) + "\n")
    low = [k for k, m in found.items() if m["advertised"] and m["exact_match"] < GOAL]
    if low:
        print(f"under {GOAL:.0%}: {', '.join(low)}", file=sys.stderr)
    return 1 if low else 0


if __name__ == "__main__":
    sys.exit(main())
