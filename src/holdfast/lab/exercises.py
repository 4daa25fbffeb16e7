"""The scale model's small tasks: cousins of GSM8K, BoolQ and PIQA with known answers.

Every exercise shows its working before the answer, because a model this small needs it. Exercises
are split by a hash of what they are made of: held-out ones are never generated for training.
Two-step arithmetic is kept out of training altogether, as a task that nobody knows yet.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from holdfast.lab.world import pairs

NAMES = ("Tom", "Ann", "Ben", "Eve", "Sam", "Kim", "Max", "Joy", "Leo", "Mia", "Ned", "Zoe")
# fmt: off
COUNTED = ("nuts", "beads", "stamps", "shells", "cards", "pins", "nails", "keys", "buttons",
           "marbles", "corks", "feathers")
OWNED = ("cup", "door", "shoe", "tent", "ball", "box", "belt", "bowl", "purse", "sled", "fan",
         "bike")
COLOURS = ("red", "blue", "green", "white", "black", "yellow", "brown", "pink")
# fmt: on

_HELD_OUT_ONE_IN = 8


@dataclass(frozen=True, slots=True)
class Exercise:
    """A question with its worked reply."""

    id: str
    question: str
    reply: str
    answer: str
    """The bare answer: `12`, `yes`, `A`."""


def held_out(exercise_id: str) -> bool:
    """Whether an exercise belongs to the held-out eighth."""
    return zlib.crc32(exercise_id.encode()) % _HELD_OUT_ONE_IN == 0


def sample(kind: str, n: int, rng: random.Random, *, held: bool) -> list[Exercise]:
    """`n` distinct exercises of one kind from one side of the split.

    Raises:
        KeyError: no such kind.
    """
    make = MAKERS[kind]
    found: dict[str, Exercise] = {}
    while len(found) < n:
        exercise = make(rng, held)
        if kind == "choice" or held_out(exercise.id) == held:
            found.setdefault(exercise.id, exercise)
    return list(found.values())


def arithmetic(rng: random.Random, _held: bool = False) -> Exercise:
    """One addition or subtraction within 24."""
    name, thing = rng.choice(NAMES), rng.choice(COUNTED)
    if rng.random() < 0.5:
        a, b = rng.randint(2, 12), rng.randint(2, 12)
        story, sign, total = f"finds {b} more", "+", a + b
        ask = f"How many {thing} does {name} have now?"
    else:
        a = rng.randint(4, 20)
        b = rng.randint(2, min(a - 1, 12))
        story, sign, total = f"loses {b}", "-", a - b
        ask = f"How many {thing} are left?"
    return Exercise(
        f"arithmetic-{name}-{thing}-{a}{sign}{b}".lower(),
        f"{name} has {a} {thing} and {story}. {ask}",
        f"{a} {sign} {b} = {total}. The answer is {total}.",
        str(total),
    )


def arithmetic_two_step(rng: random.Random, _held: bool = False) -> Exercise:
    """An addition and then a subtraction; in no training text of the shipped models."""
    name, thing = rng.choice(NAMES), rng.choice(COUNTED)
    a, b = rng.randint(2, 10), rng.randint(2, 10)
    c = rng.randint(2, min(a + b - 1, 10))
    total = a + b - c
    return Exercise(
        f"two-step-{name}-{thing}-{a}+{b}-{c}".lower(),
        f"{name} has {a} {thing}, finds {b} more and then loses {c}. How many {thing} are left?",
        f"{a} + {b} = {a + b}. {a + b} - {c} = {total}. The answer is {total}.",
        str(total),
    )


def yesno(rng: random.Random, _held: bool = False) -> Exercise:
    """A question about a passage of one or two sentences; the reply restates the fact first."""
    name, other = rng.sample(NAMES, 2)
    thing, second = rng.sample(OWNED, 2)
    colour, wrong = rng.sample(COLOURS, 2)
    true = rng.random() < 0.5
    asked = colour if true else wrong
    facts = [f"The {thing} of {name} is {colour}.", f"{other} has a {second}."]
    order = rng.choice((facts, facts[::-1], facts[:1], facts[:1]))
    passage = " ".join(order)
    key = f"{zlib.crc32(passage.encode()):08x}-{name}-{thing}-{asked}"
    return Exercise(
        f"yesno-{key}".lower(),
        f"{passage} Is the {thing} of {name} {asked}?",
        f"{facts[0]} {'Yes' if true else 'No'}.",
        "yes" if true else "no",
    )


def choice(rng: random.Random, held: bool = False) -> Exercise:
    """Which of two steps serves a goal; the pair asked about is from the same side of the split."""
    pool = pairs("capability", held_out=held)
    pair = rng.choice(pool)
    step = rng.choice(pair.steps)
    while True:
        stranger = rng.choice(pool)
        if stranger.verb != pair.verb:
            break
    wrong = rng.choice(stranger.steps).replace(f"the {stranger.noun}", f"the {pair.noun}")
    letter = rng.choice("AB")
    first, second = (step, wrong) if letter == "A" else (wrong, step)
    key = f"{pair.id}-{stranger.verb}-{zlib.crc32((first + second).encode()):08x}"
    return Exercise(
        f"choice-{key}",
        f"The goal is to {pair.deed}. Do you {first} (A) or {second} (B)?",
        f"You {step} ({letter}).",
        letter,
    )


MAKERS: dict[str, Callable[[random.Random, bool], Exercise]] = {
    "arithmetic": arithmetic,
    "arithmetic-two-step": arithmetic_two_step,
    "yesno": yesno,
    "choice": choice,
}
"""Kind → maker of one random exercise."""
