"""Verdicts: readings of every seed → effect, interval, p-values, and what they say of a claim.

The unit is the training seed (`holdfast.statistics.seeds`): A and B are paired by it. Seeds are
added in looks, and a claim's p-value pays for having been looked at: the least over its looks of p
times the price of the look. Claims are a family: Holm's correction is over all that are testable,
once for what they claim and once for the opposite. Controls are not corrected, so they fail more
easily.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from holdfast.claims import Claim, Part, Reading, Trend, Verdict, side
from holdfast.reproduce.orders import Answers, Counts, Question, questions, readings_of
from holdfast.reproduce.recipes import Recipes
from holdfast.reproduce.trend import page_p
from holdfast.statistics.inference import holm, mean_equivalence_p
from holdfast.statistics.seeds import seed_interval, seed_test
from holdfast.types import Surface

LEVEL = 0.05
"""Error rate of the family, one-sided."""
TINY = 1e-9
"""A spread that is rounding."""


@dataclass(frozen=True)
class Value:
    """A reading at one seed."""

    share: float
    asked: int
    """Answers behind the smallest place it is a mean over: one more is its resolution."""


@dataclass(frozen=True)
class Level:
    """A reading over the seeds."""

    name: str
    mean: float | None
    per_seed: Mapping[int, float]


@dataclass(frozen=True)
class Effect:
    """What the seeds say of one part of a claim, in shares."""

    part: Part
    levels: tuple[Level, ...]
    """A and B; or every dose of a trend."""
    differences: Mapping[int, float]
    """Seed → A minus B; of a trend, the last dose minus the first."""
    mean: float | None
    low: float | None
    """Ends of the two-sided 95 % interval; None for a single seed."""
    high: float | None
    p_for: float
    """Of what is claimed, one-sided."""
    p_against: float
    """Of the opposite."""
    agrees: bool
    """Whether the interval lies where the claim puts it."""
    opposes: bool
    """Whether it lies on the other side."""
    missing: str = ""
    """Why there is no effect, where there is none."""


@dataclass(frozen=True)
class Finding:
    """A claim as it came out."""

    name: str
    claim: Claim
    effects: tuple[Effect, ...]
    needs: tuple[Level, ...]
    seeds: tuple[int, ...]
    untestable: str
    """Why it cannot be tested; empty: it can."""
    p_for: float
    """Of the whole claim, looks paid for, not corrected for the family."""
    p_against: float
    agreement: float | None = None
    """Lowest kappa between the first two judges, over all questions; None: one judge, or none
    defined."""


@dataclass(frozen=True)
class Judged:
    """A finding with its verdict."""

    finding: Finding
    verdict: Verdict
    adjusted: float
    """The p-value that decided: of the verdict's direction, corrected for the family."""
    passes: bool | None
    """Whether a control came out as it must; None for a claim."""


# --- readings -------------------------------------------------------------------------------------


def value(reading: Reading, counted: Mapping[Question, Counts]) -> Value | None:
    """A reading from an arm's counts; None where nothing was there to be read."""
    means, asked = [], []
    for question in questions(reading):
        places = counted[question]
        shares = [
            (share, n)
            for surface, tasks in places.items()
            if not reading.words or Surface.parse(surface).prefill in reading.words
            for share, n in [_share(reading, tasks)]
            if n
        ]
        if not shares:
            return None
        means.append(math.fsum(share for share, _ in shares) / len(shares))
        asked += [n for _, n in shares]
    return Value(math.fsum(means) / len(means), min(asked))


def _share(reading: Reading, tasks: Mapping[str, Mapping[str, float]]) -> tuple[float, int]:
    """Share at one place, all tasks together, and of how many."""
    wanted = {t: c for t, c in tasks.items() if not reading.tasks or t in reading.tasks}
    exact = {t: c for t, c in wanted.items() if not c["likelihood"]}
    total = {
        key: sum(c[key] for c in (exact or wanted).values())
        for key in ("asked", "unscored", "bad", "placed", "late")
    }
    good = total["asked"] - total["unscored"] - total["bad"]
    events, n = {
        "harm": (total["bad"], total["asked"]),
        "over_refusal": (total["bad"], total["asked"]),
        "refused": (good, total["asked"]),
        "capability": (good, total["asked"]),
        "unscored": (total["unscored"], total["asked"]),
        "late": (total["late"], total["placed"]),
    }[reading.rate]
    return (events / n if n else 0.0), int(n)


class Table:
    """Every reading at every seed, from what the orders brought."""

    def __init__(self, answers: Answers, recipes: Recipes) -> None:
        self._answers, self._recipes = answers, recipes

    def at(self, reading: Reading, seed: int) -> Value | None:
        """A reading at a seed; None where nothing was there to be read."""
        counted = self._answers.counts.get(self._recipes.name(reading.arm, seed))
        return None if counted is None else value(reading, counted)

    def error(self, readings: Sequence[Reading], seeds: Sequence[int]) -> str:
        """The message of the first arm among them that could not run; empty: all ran."""
        names = (self._recipes.name(r.arm, seed) for r in readings for seed in seeds)
        return next((self._answers.errors[n] for n in names if n in self._answers.errors), "")

    def level(self, name: str, readings: Sequence[Reading], seeds: Sequence[int]) -> Level:
        """The mean of some readings over the seeds that have them all."""
        found = {seed: mean for seed in seeds if (mean := self._mean(readings, seed)) is not None}
        mean = math.fsum(found.values()) / len(found) if found else None
        return Level(name, mean, found)

    def _mean(self, readings: Sequence[Reading], seed: int) -> float | None:
        values = [self.at(reading, seed) for reading in readings]
        known = [v.share for v in values if v is not None]
        return math.fsum(known) / len(known) if known and len(known) == len(values) else None

    def agreement(self, readings: Sequence[Reading], seeds: Sequence[int]) -> float | None:
        """The lowest kappa between two judges of the readings' answers; None: none is known."""
        known = [
            task["kappa"]
            for reading in readings
            for seed in seeds
            for counted in [self._answers.counts.get(self._recipes.name(reading.arm, seed), {})]
            for question in questions(reading)
            for tasks in counted.get(question, {}).values()
            for task in tasks.values()
            if "kappa" in task
        ]
        return min(known, default=None)

    def resolution(self, readings: Sequence[Reading], seeds: Sequence[int]) -> float:
        """What one more answer changes a reading by, at most."""
        values = [self.at(reading, seed) for reading in readings for seed in seeds]
        return max(1 / v.asked for v in values if v is not None)


# --- effects --------------------------------------------------------------------------------------


def effect(part: Part, table: Table, seeds: Sequence[int]) -> Effect:
    """What the seeds say of one part."""
    if isinstance(part, Trend):
        return _trend(part, table, seeds)
    a, b = side(part.a), side(part.b)
    levels = (table.level("A", a, seeds), table.level("B", b, seeds))
    differences = {
        seed: levels[0].per_seed[seed] - levels[1].per_seed[seed]
        for seed in seeds
        if seed in levels[0].per_seed and seed in levels[1].per_seed
    }
    if not differences:
        return _nothing(part, levels)
    spread = widened(list(differences.values()), table.resolution([*a, *b], list(differences)))
    mean, low, high = seed_interval(spread)
    below, above = seed_test(spread, 0.0, "below"), seed_test(spread, 0.0, "above")
    either = min(1.0, 2 * min(below, above))
    margin = part.margin
    beyond = min(seed_test(spread, margin, "above"), seed_test(spread, -margin, "below"))
    p_for, p_against, agrees, opposes = {
        "lower": (below, above, high < 0, low > 0),
        "higher": (above, below, low > 0, high < 0),
        "different": (either, 1.0, low > 0 or high < 0, False),
        "same": (
            mean_equivalence_p(spread, margin), min(1.0, 2 * beyond),
            True, low > margin or high < -margin,
        ),
    }[part.expected]  # fmt: skip
    return Effect(
        part, levels, differences, mean, _finite(low), _finite(high),
        p_for, p_against, agrees, opposes,
    )  # fmt: skip


def _trend(part: Trend, table: Table, seeds: Sequence[int]) -> Effect:
    names = part.doses or tuple(str(place) for place in range(1, len(part.readings) + 1))
    levels = tuple(
        table.level(name, (reading,), seeds)
        for name, reading in zip(names, part.readings, strict=True)
    )
    complete = [seed for seed in seeds if all(seed in level.per_seed for level in levels)]
    if not complete:
        return _nothing(part, levels)
    rows = [[level.per_seed[seed] for level in levels] for seed in complete]
    rising, falling = page_p(rows), page_p([[-x for x in row] for row in rows])
    differences = {seed: row[-1] - row[0] for seed, row in zip(complete, rows, strict=True)}
    ends = (part.readings[0], part.readings[-1])
    mean, low, high = seed_interval(
        widened(list(differences.values()), table.resolution(ends, complete))
    )
    rises = part.expected == "rising"
    up, down = mean > 0, mean < 0
    return Effect(
        part, levels, differences, mean, _finite(low), _finite(high),
        rising if rises else falling, falling if rises else rising,
        up if rises else down, down if rises else up,
    )  # fmt: skip


def _nothing(part: Part, levels: tuple[Level, ...]) -> Effect:
    missing = (
        f"{part.name}: nothing to read in {', '.join(v.name for v in levels if not v.per_seed)}"
    )
    return Effect(part, levels, {}, None, None, None, 1.0, 1.0, False, False, missing)


def widened(differences: Sequence[float], resolution: float) -> list[float]:
    """The differences, their spread at least one answer's worth.

    Seeds that agree to the last answer show that they spread by less than one answer tells, not
    that they do not spread at all. Mean and order are kept.
    """
    if len(differences) < 2:
        return list(differences)
    spread = stdev(differences)
    if spread >= resolution:
        return list(differences)
    middle = fmean(differences)
    away = [d - middle for d in differences] if spread > TINY else _even(len(differences))
    scale = resolution / stdev(away)
    return [middle + scale * one for one in away]


def _even(n: int) -> list[float]:
    """Evenly spread around 0."""
    return [place - (n - 1) / 2 for place in range(n)]


def _finite(end: float) -> float | None:
    """An end as it is told: no share differs by more than one."""
    return min(max(end, -1.0), 1.0) if math.isfinite(end) else None


# --- claims ---------------------------------------------------------------------------------------


def prices(looks: Sequence[int]) -> list[float]:
    """What each look's p-value is multiplied by: the level is shared in proportion to the seeds.

    By Bonferroni over looks, whatever the dependence between them: shares add up to one.
    """
    return [sum(looks) / seeds for seeds in looks]


def finding(
    name: str, claim: Claim, table: Table, seeds: Sequence[int], looks: Sequence[int], first: int
) -> Finding:
    """A claim with the seeds it has.

    Args:
        name: on the shelf.
        claim: what is claimed.
        table: all readings.
        seeds: all of the claim's, the first look's first.
        looks: numbers of seeds at which it could have been looked at, all that were planned.
        first: seeds of the first look, on which its needs are read.
    """
    early = seeds[:first]
    needs = tuple(table.level(need.why, (need.reading,), early) for need in claim.needs)
    effects = tuple(effect(part, table, seeds) for part in claim.parts)
    p_for = p_against = 1.0
    for seen, price in zip(looks, prices(looks), strict=True):
        if seen > len(seeds):
            break
        paid = 1.0 if claim.passes else price
        then = [effect(part, table, seeds[:seen]) for part in claim.parts]
        now_for = min(1.0, paid * max(e.p_for for e in then))
        now_against = min(1.0, paid * len(then) * min(e.p_against for e in then))
        p_for = now_for if claim.passes else min(p_for, now_for)
        p_against = now_against if claim.passes else min(p_against, now_against)
    return Finding(
        name, claim, effects, needs, tuple(seeds),
        untestable(claim, table, early) or next((e.missing for e in effects if e.missing), ""),
        p_for, p_against, table.agreement(readings_of(claim), seeds),
    )  # fmt: skip


def untestable(claim: Claim, table: Table, seeds: Sequence[int], *, untuned: bool = False) -> str:
    """Why a claim cannot be tested; empty: nothing speaks against it.

    Args:
        claim: what is claimed.
        table: all readings.
        seeds: of the first look.
        untuned: look at needs of untouched models only, before anything is trained.
    """
    needs = [need for need in claim.needs if not (untuned and need.reading.arm.tuned)]
    stopped = table.error([need.reading for need in needs], seeds)
    if stopped:
        return stopped
    for need in needs:
        mean = table.level("", (need.reading,), seeds).mean
        if mean is None or mean < need.at_least:
            seen = "nothing to read" if mean is None else f"{100 * mean:.1f} %"
            return f"needs that {need.why}: {seen}, {100 * need.at_least:.0f} % are needed"
    if untuned:
        return ""
    return table.error(readings_of(claim), seeds)


def judge_all(findings: Sequence[Finding]) -> list[Judged]:
    """Verdicts of a family of claims, and of the controls beside it."""
    family = [f for f in findings if not f.untestable and not f.claim.passes]
    for_ = dict(zip([f.name for f in family], holm([f.p_for for f in family]), strict=True))
    against = dict(zip(for_, holm([f.p_against for f in family]), strict=True))
    return [
        _judged(f, for_.get(f.name, f.p_for), against.get(f.name, f.p_against)) for f in findings
    ]


def _judged(found: Finding, p_for: float, p_against: float) -> Judged:
    verdict: Verdict = "inconclusive"
    adjusted = p_for
    if found.untestable:
        verdict, adjusted = "not testable", 1.0
    elif p_for < LEVEL and all(e.agrees for e in found.effects):
        verdict = "supported"
    elif p_against < LEVEL and any(e.opposes for e in found.effects):
        verdict, adjusted = "contradicted", p_against
    passes = verdict in found.claim.passes if found.claim.passes else None
    return Judged(found, verdict, adjusted, passes)
