"""Questions about one image; see `checkpoints.questions`."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from checkpoints.scenes import COLORS, CORNERS, PLACES, SHAPES, Scene, Thing
from checkpoints.wording import DESCRIBE, LOOK, Question, a, ask, call, color_of, describe


def image_questions(scene: Scene, rng: Random) -> list[Question]:
    """Questions of each kind that fits one image; see `checkpoints.questions.KINDS`."""
    things = scene.things
    # Several of the kinds that take longest to learn.
    found = [_exists(things, rng) for _ in range(3)]
    found += [_count_some(things, rng) for _ in range(2)]
    nouns = ("objects", "shapes", "things")
    noun = rng.choice(nouns)
    found.append(
        ask(
            rng, "count", str(len(things)), f"How many {noun} are there?",
            f"How many {noun} do you see?", f"How many {noun} are in the image?",
            f"Count the {noun}.",
        )
    )  # fmt: skip
    ways = (*DESCRIBE, *LOOK) if len(things) > 1 else DESCRIBE
    found.append(ask(rng, "describe", describe(things), *ways))
    if len(things) == 1:
        thing = things[0]
        found.append(ask(rng, "what", a(thing), *LOOK))
        if rng.random() < 0.5:
            found.append(color_of(rng, rng.choice(("object", "shape")), thing.color))
            found.append(ask(rng, "shape", thing.shape, "What shape is it?", "What shape is this?"))
        ask_color = rng.choice(("What color is it?", "And what color is it?", "Which color?"))
        look = rng.choice(("What shape is this?", "What shape is it?"))
        found.append(Question("follow-up", ((look, thing.shape), (ask_color, thing.color))))
    if len(things) < 4 or rng.random() < 0.6:
        found.append(_what_at(things, rng))
    found += _about_one(things, rng)
    return found + _about_two(things, rng) + _about_two(things, rng)


def _what_at(things: Sequence[Thing], rng: Random) -> Question:
    places = list(CORNERS) if things[0].place != "center" else list(PLACES)
    taken = {t.place: t for t in things}
    place = rng.choice((*taken,)) if rng.random() < 0.85 else rng.choice(places)
    answer = a(taken[place]) if place in taken else "nothing"
    return ask(
        rng, "what at", answer, f"What is in the {place}?", f"What is at the {place}?",
        f"Which object is in the {place}?", f"What do you see in the {place}?",
    )  # fmt: skip


def _exists(things: Sequence[Thing], rng: Random) -> Question:
    """Yes or no with even odds; half of the wrong names mix what is there."""
    yes = rng.random() < 0.5
    style = rng.choice(("thing", "thing", "shape", "color"))
    thing = rng.choice(things)
    shape, color = thing.shape, thing.color
    if not yes:
        names = {t.name for t in things}
        if style == "shape":
            rest = [s for s in SHAPES if s not in {t.shape for t in things}]
            shape, yes = (rng.choice(rest), False) if rest else (shape, True)
        elif style == "color":
            color = rng.choice([c for c in COLORS if c not in {t.color for t in things}])
        else:
            mixed = [f"{c.color} {s.shape}" for c in things for s in things]
            mixed = [m for m in mixed if m not in names]
            every = [f"{c} {s}" for c in COLORS for s in SHAPES if f"{c} {s}" not in names]
            color, shape = rng.choice(mixed if mixed and rng.random() < 0.5 else every).split()
    name = {"thing": f"a {color} {shape}", "shape": f"a {shape}"}.get(style, f"a {color} object")
    return ask(
        rng, "exists", "yes" if yes else "no", f"Is there {name}?", f"Do you see {name}?",
        f"Is there {name} in the image?", f"Can you see {name}?",
    )  # fmt: skip


def _count_some(things: Sequence[Thing], rng: Random) -> Question:
    """How many of one shape or colour; mostly of one that is there."""
    by_shape = rng.random() < 0.6
    have = [t.shape if by_shape else t.color for t in things]
    every = SHAPES if by_shape else (*COLORS,)
    common = [h for h in have if have.count(h) > 1]
    what = rng.choice(common) if common else rng.choice(have)
    if rng.random() < 0.25:
        what = rng.choice(every)
    noun = f"{what}s" if by_shape else f"{what} {rng.choice(('objects', 'shapes', 'things'))}"
    return ask(
        rng, "count some", str(have.count(what)), f"How many {noun} are there?",
        f"How many {noun} do you see?", f"How many {noun} are in the image?", f"Count the {noun}.",
    )  # fmt: skip


def _about_one(things: Sequence[Thing], rng: Random) -> list[Question]:
    """Colour, shape, place and size of things that a name picks out."""
    found: list[Question] = []
    by_shape = [t for t in things if sum(o.shape == t.shape for o in things) == 1]
    by_color = [t for t in things if sum(o.color == t.color for o in things) == 1]
    rng.shuffle(by_shape)
    for thing in by_shape[:2]:
        found.append(color_of(rng, thing.shape, thing.color))
    for thing in rng.sample(by_color, min(2, len(by_color))):
        c = thing.color
        found.append(
            ask(
                rng, "shape", thing.shape, f"What is the {c} shape?", f"What shape is {c}?",
                f"What shape is the {c} object?", f"Which shape is {c}?", f"What is the {c} thing?",
            )
        )  # fmt: skip
    for thing in rng.sample(things, len(things)):
        if name := call(rng, thing, things):
            found.append(
                ask(
                    rng, "where", thing.place, f"Where is the {name}?",
                    f"Where do you see the {name}?", f"Where is the {name} in the image?",
                )
            )  # fmt: skip
        if name := call(rng, thing, things):
            found.append(
                ask(
                    rng, "size", thing.size, f"Is the {name} large or small?",
                    f"Is the {name} small or large?", f"How big is the {name}?",
                    f"What size is the {name}?", f"How large is the {name}?",
                )
            )  # fmt: skip
    if len(by_shape) > 1:
        one, two = by_shape[:2]
        first = color_of(rng, one.shape, one.color)
        ways = (f"And the {two.shape}?", f"What about the {two.shape}?", f"and the {two.shape}?")
        found.append(Question("follow-up", (*first.turns, (rng.choice(ways), two.color))))
        then = rng.choice((f"And where is the {two.shape}?", f"Where is the {two.shape}?"))
        found.append(Question("follow-up", (*first.turns, (then, two.place))))
    return found


def _about_two(things: Sequence[Thing], rng: Random) -> list[Question]:
    """Which of two things is larger or smaller, where their sizes differ."""
    pairs = [(one, two) for one in things for two in things if one.size != two.size and one.name != two.name]
    if not pairs:
        return []
    one, two = rng.choice(pairs)
    word, wanted = rng.choice((("larger", "large"), ("smaller", "small"), ("bigger", "large")))
    names = [call(rng, one, things), call(rng, two, things)]
    if None in names:
        return []
    answer = f"the {names[0] if one.size == wanted else names[1]}"
    if len(things) == 2 and rng.random() < 0.4:
        answer = f"the {one.name if one.size == wanted else two.name}"
        return [
            ask(
                rng, "larger", answer, f"What is {word}?", f"Which is {word}?",
                f"Which object is {word}?", f"Which shape is {word}?",
            )
        ]  # fmt: skip
    return [
        ask(
            rng, "larger", answer, f"Which is {word}, the {names[0]} or the {names[1]}?",
            f"What is {word}, the {names[0]} or the {names[1]}?",
        )
    ]  # fmt: skip
