"""One coloured shape: what it can look like, and how it is drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from random import Random

from PIL import ImageDraw

Rgb = tuple[int, int, int]

SHAPES = ("circle", "square", "triangle", "star")
COLORS: dict[str, Rgb] = {
    "red": (220, 30, 35),
    "green": (30, 160, 60),
    "blue": (35, 75, 220),
    "yellow": (245, 205, 20),
    "purple": (150, 50, 180),
    "black": (25, 25, 25),
}
# In reading order: a description names the things of a scene in this order.
PLACES: dict[str, tuple[float, float]] = {
    "top left": (0.26, 0.26),
    "top right": (0.74, 0.26),
    "bottom left": (0.26, 0.74),
    "bottom right": (0.74, 0.74),
    "center": (0.5, 0.5),
}
CORNERS = tuple(PLACES)[:4]
JITTER = 0.035  # how far a thing may be from its place, in fractions of the sides
# Radius of the circle around a shape, as a fraction of the shorter side of the picture.
RADII = {"small": 0.115, "large": 0.205}
DIRECTIONS: dict[str, tuple[int, int]] = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
}


def held_out(color: str, shape: str, spot: str) -> bool:
    """Whether this colour and shape in this place (or moving this way) is kept from training.

    About one combination in eleven is; each colour and shape is seen in all other places.
    """
    spots = (*PLACES,) if spot in PLACES else (*DIRECTIONS,)
    number = 2 * (*COLORS,).index(color) + 3 * SHAPES.index(shape) + 5 * spots.index(spot)
    return number % 11 == 0


@dataclass(frozen=True)
class Thing:
    """One coloured shape. `x`, `y` in 0..1 of width and height, `radius` of the shorter side."""

    shape: str
    color: str
    place: str
    size: str
    x: float
    y: float
    radius: float
    tilt: float
    rgb: Rgb

    @property
    def name(self) -> str:
        """For example "red circle"."""
        return f"{self.color} {self.shape}"

    def paint(self, pen: ImageDraw.ImageDraw, width: int, height: int) -> None:
        """Draw this thing with `pen` on a picture of `width` x `height` pixels."""
        x, y, r = self.x * width, self.y * height, self.radius * min(width, height)
        if self.shape == "circle":
            r *= 0.93
            pen.ellipse((x - r, y - r, x + r, y + r), fill=self.rgb)
            return
        radii = {"square": (r,) * 4, "triangle": (r,) * 3, "star": (r * 1.08, r * 0.44) * 5}
        corners = radii[self.shape]
        start = self.tilt - math.pi / (4 if self.shape == "square" else 2)
        turn = 2 * math.pi / len(corners)
        pen.polygon(
            [(x + c * math.cos(start + i * turn), y + c * math.sin(start + i * turn)) for i, c in enumerate(corners)],
            fill=self.rgb,
        )


def random_thing(rng: Random, place: str, jitter: float = JITTER) -> Thing:
    """A thing in `place` with everything else at random; `jitter` is in fractions of a side."""
    color = rng.choice((*COLORS,))
    size = rng.choice((*RADII,))
    x, y = PLACES[place]
    red, green, blue = (min(255, max(0, c + rng.randint(-14, 14))) for c in COLORS[color])
    return Thing(
        shape=rng.choice(SHAPES),
        color=color,
        place=place,
        size=size,
        x=x + rng.uniform(-jitter, jitter),
        y=y + rng.uniform(-jitter, jitter),
        radius=RADII[size] * rng.uniform(0.92, 1.08),
        tilt=rng.uniform(-0.14, 0.14),
        rgb=(red, green, blue),
    )


def twin(rng: Random, things: list[Thing], share: float) -> list[Thing]:
    """With the odds `share`, give two of the things one colour or one shape."""
    if len(things) > 1 and rng.random() < share:
        one, two = rng.sample(range(len(things)), 2)
        if rng.random() < 0.65:
            things[one] = replace(things[one], color=things[two].color, rgb=things[two].rgb)
        else:
            things[one] = replace(things[one], shape=things[two].shape)
    return things


def random_background(rng: Random) -> Rgb:
    """White or a light tint."""
    base = rng.randint(232, 255)
    red, green, blue = (min(255, max(225, base + rng.randint(-6, 6))) for _ in range(3))
    return red, green, blue
