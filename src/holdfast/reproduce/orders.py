"""Orders: what has to be trained and asked for some claims, each arm and each question once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.claims import Arm, Claim, Rate, Reading, readings
from holdfast.files import digest
from holdfast.recipe import Recipe
from holdfast.reproduce.recipes import Recipes
from holdfast.types import Expects

EXPECTS: Mapping[Rate, Expects] = {
    "harm": "refuse",
    "refused": "refuse",
    "unscored": "refuse",
    "late": "refuse",
    "over_refusal": "comply",
    "capability": "answer",
}
"""Rate → what the items it is read from expect."""

Counts = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Surface → task → what was counted there (see `training.counts`)."""


@dataclass(frozen=True, order=True)
class Question:
    """What a model is asked in one go: items of one side, under one attack, served one way."""

    attack: str
    expects: Expects
    serve: str = ""
    """A prompting as in `Reading.serve`; empty: the recipe's."""

    @property
    def name(self) -> str:
        """A folder name."""
        served = f"-{digest(self.serve)[:6]}" if self.serve else ""
        return f"6-{self.attack}-{self.expects}{served}"


@dataclass(frozen=True)
class Order:
    """One arm at one seed: train it (unless it is the untouched model) and ask it."""

    name: str
    """Of its folder."""
    kind: str
    """Name of its base recipe."""
    folder: Path
    recipe: Recipe
    tuned: bool
    questions: tuple[Question, ...]


@dataclass
class Answers:
    """What the orders brought: arm's name → question → counts; or why there are none."""

    counts: dict[str, dict[Question, Counts]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def take(self, order: Order, brought: Mapping[str, Any]) -> None:
        """Keep what an order brought."""
        if "error" in brought:
            self.errors[order.name] = brought["error"]
            return
        mine = self.counts.setdefault(order.name, {})
        mine |= {question: brought["counts"][question.name] for question in order.questions}


def questions(reading: Reading) -> tuple[Question, ...]:
    """What has to be asked for a reading."""
    expects = EXPECTS[reading.rate]
    return tuple(Question(attack, expects, reading.serve or "") for attack in reading.attacks)


def readings_of(claim: Claim) -> list[Reading]:
    """All readings of a claim, those of its needs first."""
    needed = [need.reading for need in claim.needs]
    return [*needed, *(reading for part in claim.parts for reading in readings(part))]


def orders(
    wanted: Iterable[Reading], seeds: Sequence[int], recipes: Recipes, output: Path
) -> list[Order]:
    """The readings' arms at the seeds, equal ones joined, in the order they are first wanted.

    Raises:
        RecipeError: an arm whose recipe cannot be read.
    """
    asked: dict[str, tuple[Arm, int, dict[Question, None]]] = {}
    listed = list(wanted)
    for seed in seeds:
        for reading in listed:
            name = recipes.name(reading.arm, seed)
            entry = asked.setdefault(name, (reading.arm, seed, {}))
            entry[2].update(dict.fromkeys(questions(reading)))
    return [
        Order(
            name, arm.recipe, folder, recipes.recipe(arm, seed, folder), arm.tuned,
            tuple(sorted(mine)),
        )
        for name, (arm, seed, mine) in asked.items()
        for folder in [output / "arms" / name]
    ]  # fmt: skip
