"""The shelf of mitigations: small bundles of hooks, never a flag tested in a stage.

A mitigation steers a fine-tune at up to three places, each a function that defaults to doing
nothing: the rows that are added, the prompting in training and serving, and the segments of a row
once a tokenizer is known.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast.recipe import MimicSettings, TriplesSettings
from holdfast.registry import Shelf
from holdfast.rendering.prompting import Prompting
from holdfast.rows.induction import Format
from holdfast.rows.style import Donor
from holdfast.types import Conversation

Shape = Callable[[Conversation, random.Random], Conversation]


@dataclass(frozen=True, slots=True)
class Request:
    """How many rows of which kind a mitigation wants in the mixture."""

    source: str
    """What the rows will be called (`safety`, `mimic`, `borderline`, …)."""
    pool: str
    """Which pool they are drawn from: `safety`, `borderline` or `triples`."""
    count: int | None = None
    share: float | None = None
    """Of the final training set."""
    ratio: float | None = None
    """To the user's rows."""
    at_least: int = 0
    shape: Shape = lambda row, rng: row
    """What is done to each drawn row."""
    suit: Callable[[Sequence[Conversation]], Shape] | None = None
    """Makes `shape` of all rows of the pool, where what is done to one depends on the others."""
    prefer: Callable[[Sequence[Conversation]], Sequence[Conversation]] | None = None
    """Puts the rows of the pool into another order, from whose beginning rows are drawn; None: the
    seeded one."""
    as_much_as: Shape | None = None
    """A shape that the dose is meant in: as many rows are drawn as come to its words."""
    together: bool = False
    """Whether it takes the same rows of its pool as other requests of that kind, instead of rows of
    its own."""


@dataclass(frozen=True, slots=True)
class PlanContext:
    """What a mitigation may know when it plans."""

    formats: Sequence[Format]
    """The formats the user's rows share, commonest first; empty where they share none."""
    safety_prompt: str
    user_rows: int
    dose: Mapping[str, Any] = field(default_factory=dict)
    """The recipe's `safety:` dose: `count`, `share` or `ratio`, and `at_least`."""
    borderline: Mapping[str, Any] = field(default_factory=dict)
    """The recipe's `borderline:` dose."""
    defences: Prompting = field(default_factory=Prompting)
    """The reminder and the demonstrations that serving-side mitigations add."""
    triples: TriplesSettings = field(default_factory=TriplesSettings)
    """The recipe's `triples:` block: dose, prefix and format."""
    token_ends: Callable[[str], Sequence[int]] | None = None
    """Text → the character at which each token ends; None: no tokenizer is known."""
    mimic: MimicSettings = field(default_factory=MimicSettings)
    """How safety rows mimic the user's."""
    donors: Sequence[Sequence[Donor]] = ()
    """For each format, some of the user's rows; where they share none, for the bare one."""


@dataclass(frozen=True, slots=True)
class Mitigation:
    """A bundle of hooks."""

    name: str
    data: Callable[[PlanContext], list[Request]] = lambda context: []
    """Rows to add."""
    train: Callable[[Prompting, PlanContext], Prompting] = lambda prompting, context: prompting
    """Prompting in training."""
    serve: Callable[[Prompting, PlanContext], Prompting] = lambda prompting, context: prompting
    """Prompting in serving."""


MITIGATIONS: Shelf[Callable[..., Mitigation]] = Shelf("mitigations")
