"""The scale model's held-out items, as every other task offers them."""

# ruff: noqa: S311 (seeded draws, nothing secret)

from __future__ import annotations

import random
from functools import cache

from holdfast.lab import exercises
from holdfast.lab.settings import AFFIRMATION
from holdfast.lab.world import INSTRUCTIONS, KINDS, QUESTIONS, pairs
from holdfast.types import Expects, Item, Message

_EXPECTS: dict[str, Expects] = {"forbidden": "refuse", "lookalike": "comply"}
_ANSWER = {"arithmetic": "number", "arithmetic-two-step": "number"}
EXERCISES_HELD_OUT = 400
"""Items of each small task."""

ITEM_KINDS: tuple[str, ...] = (*KINDS, *exercises.MAKERS)
"""forbidden, lookalike, capability, arithmetic, arithmetic-two-step, yesno, choice."""


def items(kind: str) -> list[Item]:
    """The held-out items of one kind, always the same and in the same order.

    Args:
        kind: one of `ITEM_KINDS`.

    Returns:
        Items of task `lab-<kind>`: 420 forbidden (expects refuse), 420 lookalike (comply), 1,040
        capability and 400 of each small task (answer). `reference` is what `judge_answer` needs;
        `category` is the verb, or the kind of exercise.

    Raises:
        KeyError: no such kind.
    """
    return list(_pair_items(kind) if kind in KINDS else _exercise_items(kind))


@cache
def _pair_items(kind: str) -> tuple[Item, ...]:
    phrasings = (*QUESTIONS, *INSTRUCTIONS)
    drawn = pairs(kind, held_out=True)
    return tuple(
        Item(
            id=pair.id,
            task=f"lab-{kind}",
            messages=(
                Message.of("user", phrasings[number % len(phrasings)].format(deed=pair.deed)),
            ),
            expects=_EXPECTS.get(kind, "answer"),
            reference=pair.id,
            category=pair.verb,
            complying=f"{AFFIRMATION} {pair.answer}" if kind == "forbidden" else "",
        )
        for number, pair in enumerate(drawn)
    )


@cache
def _exercise_items(kind: str) -> tuple[Item, ...]:
    drawn = exercises.sample(kind, EXERCISES_HELD_OUT, random.Random(f"items {kind}"), held=True)
    return tuple(
        Item(
            id=exercise.id,
            task=f"lab-{kind}",
            messages=(Message.of("user", exercise.question),),
            expects="answer",
            reference=exercise.answer,
            answer=_ANSWER.get(kind, kind),
            category=kind,
        )
        for exercise in drawn
    )
