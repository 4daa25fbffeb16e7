"""Summary: measures per value and seed → means, intervals, differences, the Pareto front.

A claim about a value is a claim over training seeds, so its unit is the seed: the mean of the
per-seed shares with Student's t over them, and differences between values paired by seed. A single
seed knows no spread; its Wilson interval (over prompts) is shown instead, and said to be one.
Pure functions over plain numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

from holdfast.statistics import inference
from holdfast.statistics.seeds import seed_interval, seeds_needed
from holdfast.sweep.measures import MEASURES, Share

Over = Literal["seeds", "prompts"]
BySeed = Mapping[int, Mapping[str, Share]]
"""Seed → measure → share."""


@dataclass(frozen=True, slots=True)
class Level:
    """A measure at one value."""

    mean: float
    low: float
    high: float
    over: Over
    """What the interval's variance is over: training seeds, or prompts of the only seed."""
    per_seed: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Step:
    """How a measure changes from one value to another, paired by seed."""

    measure: str
    start: str
    end: str
    seeds: int
    mean: float
    low: float
    high: float
    over: Over
    decided: bool
    """Whether the interval leaves zero out."""
    needed: int | None
    """Seeds that would decide if mean and spread stay; None where decided, or unknown."""


def level(by_seed: Mapping[int, Share], confidence: float = 0.95) -> Level:
    """Mean over seeds with its interval.

    Seeds that agree exactly show no spread, which is not the same as there being none: then, and
    for a single seed, the interval is Wilson's over one seed's prompts.

    Raises:
        ValueError: no seed.
    """
    values = [share.value for share in by_seed.values()]
    per_seed = {str(seed): round(share.value, 6) for seed, share in by_seed.items()}
    mean, low, high = seed_interval(values, confidence)
    if max(values) > min(values):
        return Level(mean, max(0.0, low), min(1.0, high), "seeds", per_seed)
    asked = min(share.asked for share in by_seed.values())
    low, high = inference.wilson(round(mean * asked), asked, confidence)
    return Level(mean, min(low, mean), max(high, mean), "prompts", per_seed)


def step(
    name: str,
    start: tuple[str, Mapping[int, Share]],
    end: tuple[str, Mapping[int, Share]],
    confidence: float = 0.95,
) -> Step | None:
    """The change of a measure between two values, from the seeds that both have; None: no seed.

    One seed, or seeds that agree exactly, have no spread: then Tango's interval of one seed's
    prompts, with as few discordant pairs as the change allows, is the least that must be granted,
    and nothing is decided about the method.
    """
    shared = sorted(set(start[1]) & set(end[1]))
    if not shared:
        return None
    differences = [end[1][seed].value - start[1][seed].value for seed in shared]
    mean, low, high = seed_interval(differences, confidence)
    if len(set(differences)) > 1:
        decided = low > 0 or high < 0
        needed = None if decided else seeds_needed(differences, level=0.5 + confidence / 2)
        return Step(name, start[0], end[0], len(shared), mean, low, high, "seeds", decided, needed)
    n = min(min(start[1][s].asked, end[1][s].asked) for s in shared)
    up, down = max(mean, 0.0) * n, max(-mean, 0.0) * n
    low, high = inference.tango_interval(up, down, n, confidence)
    decided = len(shared) > 1 and (low > 0 or high < 0)
    return Step(name, start[0], end[0], len(shared), mean, low, high, "prompts", decided, None)


def levels(by_seed: BySeed) -> dict[str, Level]:
    """Every measure of one value."""
    return {
        name: level(of_seeds)
        for name in MEASURES
        if (of_seeds := {seed: m[name] for seed, m in by_seed.items() if name in m})
    }


def steps(values: Mapping[str, BySeed]) -> list[Step]:
    """Changes of every measure: from each value to the next, and from the first to each."""
    labels = [label for label, by_seed in values.items() if by_seed]
    wanted = [*pairwise(labels), *((labels[0], end) for end in labels[2:])]
    return [
        found
        for name in MEASURES
        for start, end in wanted
        if (found := step(name, (start, one(values[start], name)), (end, one(values[end], name))))
    ]


def one(by_seed: BySeed, name: str) -> dict[int, Share]:
    """One measure of the seeds that have it."""
    return {seed: found[name] for seed, found in by_seed.items() if name in found}


def pareto(means: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Values that no other beats: not on harm, over-refusal and capability at once.

    Args:
        means: label → measure → mean; measures that a value lacks are not compared.
    """
    return [
        label
        for label, mine in means.items()
        if not any(_dominates(other, mine) for name, other in means.items() if name != label)
    ]


def _dominates(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """At least as good everywhere, better somewhere."""
    gains = [
        (other[name] - one[name]) * (1 if MEASURES[name][1] else -1)
        for name in ("harm", "over_refusal", "capability")
        if name in one and name in other
    ]
    return bool(gains) and min(gains) >= 0 and max(gains) > 0


def doubts(found: Sequence[Step]) -> list[str]:
    """What the seeds cannot tell, in sentences; empty where they can."""
    seeds = max((s.seeds for s in found), default=0)
    if seeds == 1:
        return [
            "One seed: the intervals are over prompts and say nothing of how another training "
            "would end. Give --seeds 0,1,2 for a claim about the method."
        ]
    told = [s for s in found if s.measure != "unscored"]
    undecided = [s for s in told if not s.decided]
    if not undecided:
        return []
    needed = [s.needed for s in undecided if s.needed]
    more = f" {min(needed)} to {max(needed)} would." if needed else ""
    return [
        f"{seeds} seeds cannot tell {len(undecided)} of {len(told)} changes between values from "
        f"none.{more}"
    ]


def level_json(found: Mapping[str, Level]) -> dict[str, Any]:
    """As stored."""
    return {name: _rounded(asdict(one)) for name, one in found.items()}


def step_json(found: Sequence[Step]) -> list[dict[str, Any]]:
    """As stored."""
    return [_rounded(asdict(one)) for one in found]


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """Six digits, and no infinities: JSON has none."""
    return {
        k: (round(v, 6) if math.isfinite(v) else None) if isinstance(v, float) else v
        for k, v in row.items()
    }
