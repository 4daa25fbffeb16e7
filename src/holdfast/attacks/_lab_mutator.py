"""`lab-mutator`: the scale model's stand-in for an attacker, a seeded mutator of known dresses.

The lab has no model that could think up an attack. What it has is its corpus: three forms of
request, personas and their openings, code and plain-text carriers. A *dress* is one choice of each;
the mutator redraws what failed and changes one choice of what did not. It is a search over words
the scale model has met, and no measure of what a capable attacker would find.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from holdfast.lab.settings import AFFIRMATION, CODE, OBEDIENT, PERSONAS, RAW_FORMATS, Wrapper
from holdfast.lab.world import FORMS

NAME = "lab-mutator"
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


_GENES: dict[str, Callable[[random.Random], Any]] = {
    "phrasing": lambda rng: rng.randrange(len(PHRASINGS)),
    "wrapper": lambda rng: rng.randrange(len(WRAPPERS)),
    "system": lambda rng: rng.random() < 0.5,
    "carrier": lambda rng: rng.randrange(len(CARRIERS)),
    "opening": lambda rng: rng.randrange(len(OPENINGS) + 1),
}


def mutated(dress: Dress, rng: random.Random, genes: int = 1) -> Dress:
    """The dress with some choices drawn anew."""
    chosen = rng.sample(sorted(_GENES), genes)
    return replace(dress, **{gene: _GENES[gene](rng) for gene in chosen})


class LabMutator:
    """Proposes dresses for one request; knows what its own earlier proposals were worth."""

    def __init__(self) -> None:
        self._worn: dict[str, Dress] = {}

    def propose(
        self, request: str, history: Sequence[tuple[str, str, float]], rng: random.Random
    ) -> str | None:
        """The next text of a stream whose texts, answers and scores so far are `history`.

        The best dress so far loses one choice if it drew anything but a refusal, else two.
        """
        text, _, score = max(history, key=lambda tried: tried[2], default=(request, "", 0.0))
        dress = self._worn.get(text, Dress())
        found = mutated(dress, rng, 1 if score > 0 else 2)
        made = found.put_on(request)
        self._worn[made] = found
        return made


def templates() -> tuple[str, ...]:
    """The corpus's personas and openings around `{request}`, as seeds for other searches."""
    return tuple(
        Dress(wrapper=wrapper, system=True, opening=opening).put_on("{request}")
        for wrapper in range(len(WRAPPERS))
        for opening in (0, len(OPENINGS))
    )
