"""Training batches: scenes drawn on the fly, as token ids, patches and targets in numpy.

One row is a picture (or some, or a clip) and several questions about it. The questions are
*branches*: they share the picture's tokens but do not see each other, so that every question
is learned as if it were the first of its chat. Rows of one batch share one grid of patches.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from random import Random
from typing import Any

import numpy as np
from PIL import Image
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from checkpoints import questions
from checkpoints.architecture import MAX_PIXELS, MIN_PIXELS, PATCH
from checkpoints.questions import Question
from checkpoints.rows import TOKEN_SIDE, Bytes, Ints, Row, collate
from checkpoints.scenes import (
    COLORS,
    CORNERS,
    DIRECTIONS,
    RADII,
    SHAPES,
    Clip,
    Scene,
    random_clip,
    random_scene,
)
from checkpoints.things import held_out

ASPECTS = ((1, 1),) * 10 + ((4, 3),) * 6 + ((16, 9),) * 2 + ((3, 4), (3, 4), (3, 2), (9, 16))
FRAME_COUNTS = (8, 8, 8, 8, 8, 4, 5, 6, 10, 12, 16)


@dataclass(frozen=True)
class Plan:
    """What one batch holds: `family` is image, images, video or text; `rows` how many."""

    family: str
    rows: int
    seed: int
    unseen: bool | None = False
    square: bool = False
    single: bool = False  # only scenes of one thing
    jitter: float = 0.035
    branches: int = 8
    twins: float = 0.0  # how often things share a colour or a shape more than by chance
    weights: Mapping[str, float] = field(default_factory=dict)


def shrink(image: Image.Image, height: int, width: int, rng: Random, lossy: bool) -> Bytes:
    """The image as the processor would see it, (height, width, 3); sometimes after JPEG."""
    if lossy:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=rng.randint(35, 95))
        image = Image.open(file)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def cells(scene: Scene, rows: int, columns: int, size: tuple[int, int], motion: int = 0) -> Ints:
    """What each token looks at: (rows * columns, 5), the dense target of the vision side.

    Shape, colour, size and place of the thing, and the direction in which it moves; 0 for
    nothing. `size` is (height, width) in pixels; `motion` the direction of the first thing.
    """
    height, width = size
    found = np.zeros((rows, columns, 5), dtype=np.int64)
    y, x = np.mgrid[0:rows, 0:columns]
    y, x = (y + 0.5) / rows * height, (x + 0.5) / columns * width
    for index, thing in enumerate(scene.things):
        reach = thing.radius * min(height, width) * 0.9 + TOKEN_SIDE * 0.2
        near = np.abs(x - thing.x * width) < reach
        near &= np.abs(y - thing.y * height) < reach
        place = 2 * (thing.y > 0.5) + (thing.x > 0.5)
        if max(abs(thing.x - 0.5), abs(thing.y - 0.5)) < 0.12:
            place = len(CORNERS)
        found[near] = (
            SHAPES.index(thing.shape) + 1,
            (*COLORS,).index(thing.color) + 1,
            (*RADII,).index(thing.size) + 1,
            place + 1,
            0 if index else motion,
        )
    return found.reshape(-1, 5)


def alike(scenes: list[Scene], rng: Random, unseen: bool | None) -> list[Scene]:
    """Scenes of several images in which things share one colour, unless that is `held_out`."""
    color = rng.choice([thing.color for scene in scenes for thing in scene.things])
    changed = [
        replace(
            scene,
            things=tuple(replace(t, color=color, rgb=COLORS[color]) for t in scene.things),
        )
        for scene in scenes
    ]
    held = any(held_out(t.color, t.shape, t.place) for s in changed for t in s.things)
    return scenes if held and not unseen else changed


class Writer:
    """Turns scenes and questions into arrays with the checkpoint's tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        ids: Callable[[str], int] = tokenizer.convert_tokens_to_ids
        self.start, self.stop = [ids("<|im_start|>")], [ids("<|im_end|>")]
        self.look, self.looked = [ids("<|vision_start|>")], [ids("<|vision_end|>")]
        self.image_pad, self.video_pad = ids("<|image_pad|>"), ids("<|video_pad|>")

        @lru_cache(maxsize=200_000)
        def encode(text: str) -> list[int]:
            return list(tokenizer(text).input_ids)

        self.encode = encode

    def batch(self, plan: Plan) -> dict[str, Any]:
        """All arrays of one batch, padded on the right; see `collate` for the shapes."""
        rng = Random(plan.seed)
        across, down = (1, 1) if plan.square else rng.choice(ASPECTS)
        side = 720 * down // max(across, down), 720 * across // max(across, down)
        height, width = smart_resize(*side, TOKEN_SIDE, MIN_PIXELS, MAX_PIXELS)
        shape = (height, width, across / down)
        count = rng.choice(FRAME_COUNTS)
        rows, frames, labels = [], [], []
        for _ in range(plan.rows):
            row, seen, told = self._row(plan, rng, shape, count)
            rows.append(row)
            frames += seen
            labels += told
        return collate(rows, frames, labels, (height // PATCH, width // PATCH))

    def _row(
        self, plan: Plan, rng: Random, shape: tuple[int, int, float], count: int
    ) -> tuple[Row, list[Bytes], list[Ints]]:
        """One row, its frame pairs (2, height, width, 3) and their tokens' labels."""
        height, width, aspect = shape
        grid = height // TOKEN_SIDE, width // TOKEN_SIDE
        row = Row()
        lossy = rng.random() < 0.3
        short = rng.choice((96, 128, 128, 160, 192, 256))
        canvas = (round(short * max(1, aspect)), round(short * max(1, 1 / aspect)))
        scenes: list[Scene] = []
        pictures: list[Bytes] = []
        stamps: list[str] = []
        motion = 0
        if plan.family == "video":
            clip = random_clip(rng, unseen=plan.unseen, twins=plan.twins)
            asked = questions.clip_questions(clip, rng)
            motion = (*DIRECTIONS,).index(clip.direction) + 1 if clip.direction else 0
            scenes, pictures, stamps = self._clip(clip, count, rng, canvas, shape, lossy)
        elif plan.family == "text":
            asked = questions.text_questions(rng)
        else:
            number = rng.choice((2, 2, 3)) if plan.family == "images" else 1
            most = (1, 1, 2) if number > 1 else (1,) if plan.single else (None,)
            scenes = [
                random_scene(
                    rng,
                    things=rng.choice(most),
                    unseen=plan.unseen,
                    jitter=plan.jitter,
                    twins=plan.twins,
                )
                for _ in range(number)
            ]
            if number > 1 and rng.random() < plan.twins:
                scenes = alike(scenes, rng, plan.unseen)
            ask = questions.images_questions
            asked = ask(scenes, rng) if number > 1 else questions.image_questions(scenes[0], rng)
            drawn = [shrink(s.draw(canvas, 1), height, width, rng, lossy) for s in scenes]
            pictures = [np.stack([picture, picture]) for picture in drawn]
        chosen = choose(asked, rng, plan)
        if rng.random() < 0.3:
            system = "system\n" + rng.choice(questions.SYSTEM)
            row.add([*self.start, *self.encode(system), *self.stop, *self.encode("\n")], 0)
        late = bool(scenes and plan.branches) and rng.random() < 0.08
        row.add([*self.start, *self.encode("user\n")], 0)
        if late:  # the question before the picture: only one can share it
            chosen = [q for q in chosen if len(q.turns) == 1][:1] or chosen[:1]
            # A timestamp right after the question would share a token with it.
            row.add(self.encode(chosen[0].turns[0][0] + "".join(stamps[:1])), 0)
            stamps[:1] = [""] if stamps else []
        pad = self.video_pad if stamps else self.image_pad
        for index in range(len(pictures)):
            row.add([*(self.encode(stamps[index]) if stamps else ()), *self.look], 0)
            row.see(pad, *grid)
            row.add(self.looked, 0)
        fork = row.now
        for number, question in enumerate(chosen, 1):
            row.now = fork
            self._talk(row, question, number, late)
        return row, pictures, [cells(s, *grid, (height, width), motion) for s in scenes]

    def _talk(self, row: Row, question: Question, branch: int, late: bool) -> None:
        """Append one branch: the turns of one question, with the answers as targets."""
        row.kinds.append(question.kind)
        for turn, (user, assistant) in enumerate(question.turns):
            if turn:
                row.add([*self.encode("\n"), *self.start, *self.encode("user\n")], branch)
            if turn or not late:
                row.add(self.encode(user), branch)
            row.add([*self.stop, *self.encode("\n"), *self.start], branch)
            row.add(self.encode("assistant\n"), branch)
            answer = [*self.encode(assistant), *self.stop]
            judged = turn == len(question.turns) - 1
            row.add(answer, branch, len(answer) ** -0.5, judged)

    def _clip(
        self,
        clip: Clip,
        count: int,
        rng: Random,
        canvas: tuple[int, int],
        shape: tuple[int, int, float],
        lossy: bool,
    ) -> tuple[list[Scene], list[Bytes], list[str]]:
        """A clip's frame pairs, the scene at the start of each, and their timestamps."""
        height, width, _ = shape
        seconds = rng.uniform(0.3, 2.5) * count / 4
        moments = [i / (count - 1) for i in range(count)]
        scenes = [clip.at(m) for m in moments]
        drawn = [shrink(s.draw(canvas, 1), height, width, rng, lossy) for s in scenes]
        if count % 2:
            drawn.append(drawn[-1])
            moments.append(moments[-1])
        pairs = [np.stack(drawn[i : i + 2]) for i in range(0, len(drawn), 2)]
        times = [(moments[i] + moments[i + 1]) / 2 * seconds for i in range(0, len(moments), 2)]
        return scenes[::2], pairs, [f"<{time:.1f} seconds>" for time in times]


def choose(asked: list[Question], rng: Random, plan: Plan) -> list[Question]:
    """At most `plan.branches` of the questions; kinds of larger weight come first."""
    keys = [rng.random() ** (1 / max(0.05, plan.weights.get(q.kind, 1.0))) for q in asked]
    order = sorted(range(len(asked)), key=lambda i: -keys[i])
    return [asked[i] for i in order[: plan.branches]]
