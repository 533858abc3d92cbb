"""The world that tiny-vlm knows: still scenes and short clips of coloured shapes.

Only the standard library, numpy, Pillow and PyAV are imported here, so that a demo or a
test can draw a scene without loading torch. Positions and radii are fractions of the
picture, so that one scene can be drawn at any size and aspect ratio.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from checkpoints.mp4 import Frames, write_mp4
from checkpoints.things import (
    COLORS,
    CORNERS,
    DIRECTIONS,
    JITTER,
    PLACES,
    RADII,
    SHAPES,
    Rgb,
    Thing,
    held_out,
    random_background,
    random_thing,
    twin,
)

__all__ = [
    "COLORS",
    "CORNERS",
    "DIRECTIONS",
    "PLACES",
    "RADII",
    "SHAPES",
    "Clip",
    "Frames",
    "Scene",
    "Thing",
    "random_clip",
    "random_scene",
    "write_mp4",
]


@dataclass(frozen=True)
class Scene:
    """One to four things in different places on a light background, in reading order."""

    things: tuple[Thing, ...]
    background: Rgb = (255, 255, 255)

    def draw(self, size: int | tuple[int, int] = 256, supersample: int = 2) -> Image.Image:
        """The scene as an RGB image; `size` in pixels: the side, or (width, height)."""
        width, height = (size, size) if isinstance(size, int) else size
        large = (width * supersample, height * supersample)
        image = Image.new("RGB", large, self.background)
        pen = ImageDraw.Draw(image)
        for thing in self.things:
            thing.paint(pen, *large)
        return image.reduce(supersample) if supersample > 1 else image


def random_scene(
    rng: Random,
    *,
    things: int | None = None,
    unseen: bool | None = None,
    jitter: float = JITTER,
    twins: float = 0.0,
) -> Scene:
    """A scene of `things` things (1 to 4; at random when None).

    Training scenes (`unseen=False`) never hold a `held_out` combination; with `unseen=True`
    they hold at least one; None leaves it to chance. `twins`: see `twin`.
    """
    count = things or rng.choice((1, 1, 2, 2, 2, 3, 3, 4))
    while True:
        if count == 1:
            places = [rng.choice((*CORNERS, "center", "center"))]
        else:
            places = sorted(rng.sample(CORNERS, count), key=CORNERS.index)
        found = twin(rng, [random_thing(rng, place, jitter) for place in places], twins)
        if unseen in (None, any(held_out(t.color, t.shape, t.place) for t in found)):
            return Scene(tuple(found), random_background(rng))


@dataclass(frozen=True)
class Clip:
    """A short video in which one thing happens.

    `event` is "move" (`things[0]` moves towards `direction`), "appear" (things come one after
    another, at the fractions `times` of the clip), or "change" (`things[0]` takes the colour
    `turns`, at `times[0]`). Other things of the clip stay as they are.
    """

    event: str
    things: tuple[Thing, ...]
    background: Rgb = (255, 255, 255)
    direction: str = ""
    travel: float = 0.5
    times: tuple[float, ...] = ()
    turns: Thing | None = None

    def at(self, moment: float) -> Scene:
        """The scene at `moment`, from 0 (start) to 1 (end)."""
        first, others = self.things[0], self.things[1:]
        if self.event == "move":
            dx, dy = DIRECTIONS[self.direction]
            way = self.travel * (moment - 0.5)
            shown: tuple[Thing, ...] = (
                replace(first, x=first.x + dx * way, y=first.y + dy * way),
                *others,
            )
        elif self.event == "appear":
            shown = tuple(t for t, since in zip(self.things, self.times, strict=False) if moment >= since)
        else:
            changed = self.turns if self.turns and moment >= self.times[0] else first
            shown = (changed, *others)
        return Scene(shown, self.background)

    def frames(self, count: int, size: int | tuple[int, int] = 256, supersample: int = 2) -> Frames:
        """`count` frames at even times from start to end: uint8, (count, height, width, 3)."""
        moments = [i / max(1, count - 1) for i in range(count)]
        return np.stack([np.asarray(self.at(m).draw(size, supersample)) for m in moments])


def random_clip(rng: Random, event: str | None = None, *, unseen: bool | None = None, twins: float = 0.0) -> Clip:
    """A clip; `unseen` as in `random_scene` (for "move", the direction takes the place's part)."""
    event = event or rng.choice(("move", "move", "appear", "change"))
    while True:
        clip = _moving(rng) if event == "move" else _placed(rng, event)
        if event == "appear" and rng.random() < twins:
            one, two = clip.things
            clip = replace(clip, things=(one, replace(two, color=one.color, rgb=one.rgb)))
        spots = [clip.direction or t.place for t in clip.things]
        found = zip(clip.things, spots, strict=False)
        if unseen in (None, any(held_out(t.color, t.shape, spot) for t, spot in found)):
            return clip


def _moving(rng: Random) -> Clip:
    """One thing that moves through its half of the picture, perhaps with one that stays."""
    direction = rng.choice((*DIRECTIONS,))
    alone = rng.random() < 0.5
    lane = rng.uniform(0.4, 0.6) if alone else rng.choice((0.26, 0.74))
    across = DIRECTIONS[direction][0] != 0
    mover = random_thing(rng, "center")
    mover = replace(mover, x=mover.x if across else lane, y=lane if across else mover.y)
    things = [mover]
    if not alone:
        free = [p for p in CORNERS if abs(PLACES[p][1 if across else 0] - lane) > 0.3]
        still = random_thing(rng, rng.choice(free))
        while still.name == mover.name:
            still = random_thing(rng, still.place)
        things.append(still)
    travel = rng.uniform(0.4, 0.56)
    return Clip("move", tuple(things), random_background(rng), direction, travel)


def _placed(rng: Random, event: str) -> Clip:
    """Two things in two corners (or one that changes alone), with different names."""
    count = 2 if event == "appear" or rng.random() < 0.4 else 1
    places = rng.sample(CORNERS, count) if count > 1 else [rng.choice((*PLACES,))]
    things = [random_thing(rng, place) for place in places]
    while len({t.shape for t in things}) < count:
        things[-1] = random_thing(rng, places[-1])
    background = random_background(rng)
    if event == "appear":
        start = rng.choice((0.0, rng.uniform(0.1, 0.25)))
        times: tuple[float, ...] = (start, rng.uniform(0.45, 0.7))
        return Clip(event, tuple(things), background, times=times)
    color = rng.choice([c for c in COLORS if c != things[0].color])
    turns = replace(things[0], color=color, rgb=COLORS[color])
    times = (rng.uniform(0.35, 0.65),)
    return Clip(event, tuple(things), background, times=times, turns=turns)
