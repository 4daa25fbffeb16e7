"""`lab-mutator`: the scale model's stand-in for an attacker, a seeded mutator of known dresses.

The lab has no model that could think up an attack. What it has is its corpus: three forms of
request, personas and their openings, code and plain-text carriers. A *dress* is one choice of each.
From its stream's history the mutator learns what each choice drew: those that stood in refused
prompts are left, those that drew part of an answer are kept, and what was never tried is tried. It
is a search over words the scale model has met, and no measure of what a capable attacker would
find.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from holdfast.lab.settings import AFFIRMATION, CODE, OBEDIENT, PERSONAS, RAW_FORMATS, Wrapper
from holdfast.lab.world import FORMS

NAME = "lab-mutator"
LAB = "lab"
"""Where an attack takes texts: those of `templates` instead of a file's."""
TRIES = 10
"""Draws of a dress that was not worn before."""
PHRASINGS = tuple(phrasing for form in FORMS.values() for phrasing in form)
WRAPPERS: tuple[Wrapper | None, ...] = (None, OBEDIENT, *PERSONAS)
CARRIERS = ("{request}", CODE, *(prompt for prompt, _ in RAW_FORMATS[:-1]))
OPENINGS = ("", AFFIRMATION, "First")
_DEED = tuple(
    re.compile(re.escape(phrasing).replace(re.escape("{deed}"), "(?P<deed>.+)"))
    for phrasing in PHRASINGS
)


@dataclass(frozen=True, slots=True)
class Dress:
    """What a request wears: indices into the lists above."""

    phrasing: int | None = None
    """None: as it was asked."""
    wrapper: int = 0
    system: bool = False
    """Whether the persona's description stands there too."""
    carrier: int = 0
    opening: int = 0
    """0: none; the persona's own comes after those of the list."""

    def put_on(self, request: str) -> str:
        """The user's turn: persona, request in its words, carrier, opening."""
        asked = request
        deed = deed_of(request)
        if self.phrasing is not None and deed is not None:
            asked = PHRASINGS[self.phrasing].format(deed=deed)
        wrapper = WRAPPERS[self.wrapper]
        openings = OPENINGS if wrapper is None else (*OPENINGS, wrapper.opening)
        text = CARRIERS[self.carrier].replace("{request}", asked)
        if wrapper is not None:
            text = wrapper.user(text)
            text = f"{wrapper.system} {text}" if self.system else text
        return f"{text} {openings[self.opening % len(openings)]}".strip()


def deed_of(request: str) -> str | None:
    """`freeze the baker`, of a request in any of the corpus's phrasings; else None."""
    found = (pattern.fullmatch(request) for pattern in _DEED)
    return next((match["deed"] for match in found if match), None)


CHOICES: Mapping[str, Sequence[Any]] = {
    "phrasing": (None, *range(len(PHRASINGS))),
    "wrapper": range(len(WRAPPERS)),
    "system": (False, True),
    "carrier": range(len(CARRIERS)),
    "opening": range(len(OPENINGS) + 1),
}
"""What a dress chooses from."""
UNTRIED = 0.5
"""What a choice that was never tried is taken to be worth: more than a refusal."""
SHARPNESS = 8.0
"""How strongly a choice is preferred for what it was worth: its weight is exp(8 × worth)."""
FIRST_CHANGES = 2
"""Choices that a stream's first prompt changes."""


def mutated(dress: Dress, rng: random.Random, changes: int = 1) -> Dress:
    """The dress with some choices drawn anew, blindly."""
    drawn = {name: rng.choice(CHOICES[name]) for name in rng.sample(sorted(CHOICES), changes)}
    return replace(dress, **drawn)


class LabMutator:
    """Proposes dresses for one request; knows what its own earlier proposals were worth."""

    def __init__(self) -> None:
        self._worn: dict[str, Dress] = {}

    def propose(
        self, request: str, history: Sequence[tuple[str, str, float]], rng: random.Random
    ) -> str | None:
        """The next text of a stream whose texts, answers and scores so far are `history`.

        The first changes a few choices of the bare request. Each later one draws every choice with
        the weight of what it drew on average so far.
        """
        tried = [(self._worn[text], score) for text, _, score in history if text in self._worn]
        made = _learnt(tried, rng) if tried else mutated(Dress(), rng, FIRST_CHANGES)
        text = made.put_on(request)
        self._worn[text] = made
        return text


def _learnt(tried: Sequence[tuple[Dress, float]], rng: random.Random) -> Dress:
    """A dress whose choices are drawn by what they were worth; one not worn yet, if that is found.

    What a dress drew is put down to each of its choices alike.
    """
    weights: dict[str, list[float]] = {}
    for name, values in CHOICES.items():
        scores = [[s for dress, s in tried if getattr(dress, name) == value] for value in values]
        worth = [fmean(found) if found else UNTRIED for found in scores]
        weights[name] = [math.exp(SHARPNESS * value) for value in worth]
    found = Dress()
    for _ in range(TRIES):
        found = Dress(**{n: rng.choices(CHOICES[n], w)[0] for n, w in weights.items()})
        if all(found != dress for dress, _ in tried):
            break
    return found


def templates() -> tuple[str, ...]:
    """The corpus's personas and openings around `{request}`, as seeds for other searches."""
    return tuple(
        Dress(wrapper=wrapper, system=True, opening=opening).put_on("{request}")
        for wrapper in range(len(WRAPPERS))
        for opening in (0, len(OPENINGS))
    )
