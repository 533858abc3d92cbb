"""What can be asked about scenes and clips, with the true answers.

Every function returns `Question`s whose answer is certain from the picture. Phrasings, case
and the question mark vary; the answers' form does not, so that it can be compared exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from checkpoints.image_questions import image_questions
from checkpoints.scenes import Clip, Scene
from checkpoints.wording import SYSTEM, TEXT_ANSWERS, Question, a, ask, call, color_of

__all__ = [
    "KINDS", "SYSTEM", "WEAK", "Question", "clip_questions", "image_questions", "images_questions",
    "text_questions",
]  # fmt: skip

# Kind -> (family, share of right answers by guessing among the possible answers).
KINDS: dict[str, tuple[str, float]] = {
    "what": ("image", 1 / 24),
    "color": ("image", 1 / 6),
    "shape": ("image", 1 / 4),
    "where": ("image", 1 / 5),
    "what at": ("image", 1 / 24),
    "count": ("image", 1 / 4),
    "count some": ("image", 1 / 4),
    "exists": ("image", 1 / 2),
    "larger": ("image", 1 / 2),
    "size": ("image", 1 / 2),
    "describe": ("image", 0.0),
    "follow-up": ("image", 1 / 5),
    "nth what": ("images", 1 / 24),
    "nth color": ("images", 1 / 6),
    "nth count": ("images", 1 / 3),
    "which image": ("images", 1 / 2),
    "count images": ("images", 1 / 3),
    "direction": ("video", 1 / 4),
    "what moves": ("video", 1 / 24),
    "first": ("video", 1 / 2),
    "last": ("video", 1 / 2),
    "new color": ("video", 1 / 6),
    "old color": ("video", 1 / 6),
    "describe video": ("video", 0.0),
    "text": ("text", 0.0),
}
# Trained and measured, but not above 95% in every measurement: not promised to anyone.
WEAK = frozenset({"what at", "larger", "describe", "nth what", "which image"})
ORDINALS = ("first", "second", "third")


def images_questions(scenes: Sequence[Scene], rng: Random) -> list[Question]:
    """Questions about two or three images."""
    count = len(scenes)
    found = [
        ask(
            rng, "count images", str(count), "How many images are there?",
            "How many images do you see?", "How many pictures are there?",
        )
    ]  # fmt: skip
    names = [{t.name for t in scene.things} for scene in scenes]
    for index in rng.sample(range(count), min(count, 2)):
        nth, things = ORDINALS[index], scenes[index].things
        image = rng.choice(("image", "image", "picture"))
        if len(things) == 1:
            found.append(
                ask(
                    rng, "nth what", a(things[0]), f"What is in the {nth} {image}?",
                    f"What do you see in the {nth} {image}?", f"What does the {nth} {image} show?",
                )
            )  # fmt: skip
        found.append(
            ask(
                rng, "nth count", str(len(things)), f"How many objects are in the {nth} {image}?",
                f"How many shapes are in the {nth} {image}?",
            )
        )  # fmt: skip
        thing = rng.choice(things)
        if sum(t.shape == thing.shape for t in things) == 1:
            tail = f" in the {nth} {image}"
            found.append(color_of(rng, thing.shape, thing.color, tail, "nth color"))
    for index in range(count):
        nth, thing = ORDINALS[index], rng.choice(scenes[index].things)
        if sum(thing.name in n for n in names) == 1:
            found.append(
                ask(
                    rng, "which image", f"the {nth} image", f"Which image shows a {thing.name}?",
                    f"Which image has a {thing.name}?", f"In which image is the {thing.name}?",
                )
            )  # fmt: skip
    return found


def clip_questions(clip: Clip, rng: Random) -> list[Question]:
    """Questions about a video."""
    things, first = clip.things, clip.things[0]
    name = call(rng, first, things) or first.name
    if clip.event == "move":
        told = f"a {first.name} moves {clip.direction}."
        if len(things) == 1:
            name = rng.choice((name, "object", "shape"))
        found = [
            ask(
                rng, "direction", clip.direction, f"Which direction does the {name} move?",
                f"Where does the {name} move?", f"Which way does the {name} move?",
                f"In which direction does the {name} move?", f"Where is the {name} going?",
            ),
            ask(
                rng, "what moves", f"the {first.name}", "What moves?", "What is moving?",
                "Which object moves?", "Which shape is moving?",
            ),
        ]  # fmt: skip
    elif clip.event == "appear":
        second = things[1]
        told = f"a {first.name} appears, then a {second.name}."
        found = [
            ask(
                rng, kind, f"the {thing.name}", f"What appears {kind}?",
                f"Which object appears {kind}?", f"Which shape appears {kind}?",
                f"What comes {kind}?",
            )
            for kind, thing in (("first", first), ("last", second))
        ]  # fmt: skip
    else:
        color = clip.turns.color if clip.turns else first.color
        told = f"a {first.name} turns {color}."
        word = rng.choice(("color", "color", "colour"))
        name = first.shape if len(things) > 1 else rng.choice((first.shape, "object", "shape"))
        found = [
            ask(
                rng, "new color", color, f"What {word} does the {name} change to?",
                f"Which {word} does the {name} turn?", f"What {word} is the {name} at the end?",
                f"What {word} does the {name} become?",
            ),
            ask(
                rng, "old color", first.color, f"What {word} is the {name} at the start?",
                f"What {word} was the {name} first?", f"What {word} is the {name} at first?",
            ),
        ]  # fmt: skip
    found.append(
        ask(
            rng, "describe video", told, "Describe the video.", "What happens in the video?",
            "What happens?", "What happens in this clip?", "Describe this video.",
            "What do you see?", "What is in the video?",
        )
    )  # fmt: skip
    return found


def text_questions(rng: Random) -> list[Question]:
    """Greetings, and questions about a picture that was not sent."""
    groups = rng.sample([*TEXT_ANSWERS.items()], 3)
    return [ask(rng, "text", answer, *ways) for ways, answer in groups]
