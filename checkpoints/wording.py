"""How questions are worded, and what a question is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from checkpoints.scenes import Thing

LOOK = (
    "What is this?", "What is in the image?", "What is in the picture?", "What do you see?",
    "What is shown here?", "What's this?", "What's in this image?",
)  # fmt: skip
DESCRIBE = ("Describe the image.", "Describe the picture.", "Describe this image.", "Describe.")
GREETINGS = ("Hello", "Hello!", "Hi", "Hi!", "Hey", "Hello there!", "Good morning", "hello")
TEXT_ANSWERS: dict[tuple[str, ...], str] = {
    GREETINGS: "Hello! Show me shapes.",
    ("Who are you?", "What are you?", "What is your name?"): "I am tiny-vlm.",
    (
        "What can you do?", "Help", "What do you know?", "How can you help me?",
    ): "I can see colored shapes in images and short videos.",
    ("Thank you", "Thanks", "Thanks!", "Thank you!"): "You are welcome.",
    ("Bye", "Goodbye", "Goodbye!"): "Goodbye!",
    (*LOOK, *DESCRIBE, "What color is it?", "How many objects are there?"): "I see no image.",
}  # fmt: skip
SYSTEM = (
    "Answer briefly.", "You are a helpful assistant.", "You describe shapes.",
    "Be brief.", "You are tiny-vlm.", "Answer in one word if you can.",
)  # fmt: skip


@dataclass(frozen=True)
class Question:
    """`turns` are (user, assistant) texts; the last one is what `kind` tells of."""

    kind: str
    turns: tuple[tuple[str, str], ...]

    @property
    def answer(self) -> str:
        """The right answer to the last turn."""
        return self.turns[-1][1]


def ask(rng: Random, kind: str, answer: str, *ways: str) -> Question:
    """A question in one of its `ways`, sometimes typed carelessly."""
    text = rng.choice(ways)
    if rng.random() < 0.12:
        text = text.lower()
    if rng.random() < 0.12:
        text = text.rstrip("?.")
    return Question(kind, ((text, answer),))


def a(thing: Thing) -> str:
    """For example "a red circle"."""
    return f"a {thing.name}"


def call(rng: Random, thing: Thing, things: Sequence[Thing]) -> str | None:
    """A way to name `thing` that fits nothing else: "red circle" or, if unique, "circle"."""
    if sum(t.name == thing.name for t in things) > 1:
        return None
    unique = sum(t.shape == thing.shape for t in things) == 1
    return thing.shape if unique and rng.random() < 0.4 else thing.name


def join(parts: Sequence[str]) -> str:
    """For example "one, two and three"."""
    return " and ".join((", ".join(parts[:-1]), parts[-1])) if len(parts) > 1 else parts[0]


def describe(things: Sequence[Thing]) -> str:
    """For example "a red circle in the top left and a blue square in the bottom right."."""
    return join([f"{a(t)} in the {t.place}" for t in things]) + "."


def color_of(rng: Random, shape: str, color: str, tail: str = "", kind: str = "color") -> Question:
    """Ask for the colour of a shape; `tail` tells where, as in " in the second image"."""
    word = rng.choice(("color", "color", "colour"))
    return ask(
        rng, kind, color, f"What {word} is the {shape}{tail}?",
        f"Which {word} is the {shape}{tail}?", f"What is the {word} of the {shape}{tail}?",
        f"What {word} does the {shape}{tail} have?",
    )  # fmt: skip
