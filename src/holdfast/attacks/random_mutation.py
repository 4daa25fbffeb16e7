"""Attack `random_mutation`: the request with words changed at random (black box, a baseline).

What a search attack finds has to be held against what as many blind tries find. Each try changes
the request itself: a word twice, two words swapped, a letter lost, a word in capitals. Nothing is
learnt from one try for the next. With `operators: lab` the tries are random dresses of the scale
model's corpus instead: the moves of its PAIR attacker without the feedback.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field

from holdfast.attacks import ATTACKS
from holdfast.attacks._lab_mutator import Dress, mutated
from holdfast.measuring.searching import FromTheRequest, Target
from holdfast.types import Item

Words = list[str]


def _twice(words: Words, at: int, rng: random.Random) -> Words:
    return [*words[: at + 1], *words[at:]]


def _swapped(words: Words, at: int, rng: random.Random) -> Words:
    other = rng.randrange(len(words))
    changed = list(words)
    changed[at], changed[other] = words[other], words[at]
    return changed


def _misspelt(words: Words, at: int, rng: random.Random) -> Words:
    cut = rng.randrange(len(words[at]))
    return [*words[:at], words[at][:cut] + words[at][cut + 1 :], *words[at + 1 :]]


def _loud(words: Words, at: int, rng: random.Random) -> Words:
    return [*words[:at], words[at].upper(), *words[at + 1 :]]


MOVES: tuple[Callable[[Words, int, random.Random], Words], ...] = (
    _twice, _swapped, _misspelt, _loud,
)  # fmt: skip
MOST_MOVES = 3


@ATTACKS.register("random_mutation")
class RandomMutation(FromTheRequest):
    """Blind tries at random changes of the request: the baseline of every search."""

    needs: frozenset[str] = frozenset()

    def __init__(
        self,
        queries: Annotated[int, Field(ge=1)] = 60,
        seconds: Annotated[float, Field(gt=0)] | None = None,
        operators: Literal["words", "lab"] = "words",
        at_once: Annotated[int, Field(ge=1)] = 20,
    ) -> None:
        """Set the budget.

        Args:
            queries: of the target, per item.
            seconds: most time per item; None: no limit.
            operators: `words`, or `lab` for the scale model's dresses.
            at_once: tries between two looks at whether one succeeded.
        """
        self.queries, self.seconds = queries, seconds
        self.operators, self.at_once = operators, at_once

    def search(self, item: Item, target: Target, rng: random.Random) -> None:
        """Fresh changes of the request until one succeeds or the budget is spent."""
        while target.left > 0:
            target.ask([self._try(item.request, rng) for _ in range(self.at_once)])

    def _try(self, request: str, rng: random.Random) -> str:
        if self.operators == "lab":
            return mutated(Dress(), rng, rng.randint(1, MOST_MOVES)).put_on(request)
        return scrambled(request, rng)


def scrambled(text: str, rng: random.Random) -> str:
    """A text with one to three changes of its words."""
    words = text.split()
    for _ in range(rng.randint(1, MOST_MOVES) if words else 0):
        at = rng.choice([i for i, word in enumerate(words) if word] or [0])
        if words[at]:
            words = rng.choice(MOVES)(words, at, rng)
    return " ".join(word for word in words if word)
