"""Calibration: what a judge is worth, and what it missed, from a sample that people labelled.

The sample is drawn within *strata*: arm, side, attack and the judge's own label. So the verdict on
every answer says which stratum it is in, and the labelled ones say how often that stratum really
holds the event. Weighing each stratum's rate with its exact share gives the corrected figure: the
judge's verdicts on all answers make it precise, the person's on a few make it right.

This is prediction-powered inference (Angelopoulos et al., Science 382 (2023) 669-674) for a judge
whose verdict is a category: within a stratum the prediction is constant, so its mean plus the mean
error is the labelled mean, and no tuning parameter is left (Angelopoulos, Duchi & Zrnic, PPI++,
arXiv 2311.01453). It is older than that: double sampling with stratification (Neyman, JASA 33
(1938) 101-116), and for a misread binary outcome Tenenbein, JASA 65 (1970) 1350-1361.

Pure functions of counts; `holdfast.measuring.labelling` makes and reads the file.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from holdfast.statistics import inference

K = TypeVar("K", bound=Hashable)

LEAST = 2
"""Labels that every stratum gets first, where there are so many: one says nothing of a spread."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share or a change of shares with its interval."""

    value: float | None
    """None where nothing was labelled."""
    low: float
    high: float
    labelled: int
    """Labels behind it."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One labelled answer: what the judge said, what the person said, how many it stands for."""

    judge: str
    person: str
    weight: float
    """One over the probability of having been drawn."""


@dataclass(frozen=True, slots=True)
class Stratum:
    """Answers of one arm, side, attack and judge's label."""

    size: int
    """All answers in it."""
    labelled: int
    events: int
    """Labelled answers that the person counts as the side's event."""
    judged: float
    """What the judge's label counts as: 1 the event, 0 none, 0.5 unscored. Stands in for the rate
    where nobody labelled the stratum; its interval is then everything from 0 to 1."""

    @property
    def rate(self) -> float:
        """Share of the event."""
        return self.events / self.labelled if self.labelled else self.judged


# --- drawing --------------------------------------------------------------------------------------


def allocate(sizes: Mapping[K, int], total: int) -> dict[K, int]:
    """How many of each stratum to label: two each first, then by the square root of the size.

    The square root lies between equal numbers (which see rare verdicts) and proportional ones
    (which make the overall figure precise): power allocation, Bankier, Am. Statistician 42 (1988).

    Args:
        sizes: answers by stratum.
        total: labels to give; fewer are given where there are fewer answers.
    """
    given = dict.fromkeys(sizes, 0)
    queue = [_turn(sizes[key], 0, number, key) for number, key in enumerate(sizes) if sizes[key]]
    heapq.heapify(queue)
    for _ in range(min(total, sum(sizes.values()))):
        _, _, number, key = heapq.heappop(queue)
        given[key] += 1
        if given[key] < sizes[key]:
            heapq.heappush(queue, _turn(sizes[key], given[key], number, key))
    return given


def _turn(size: int, given: int, number: int, key: K) -> tuple[bool, float, int, K]:
    """Whose turn it is: the neediest first, then the largest root per label (Sainte-Laguë)."""
    return given >= LEAST, -math.sqrt(size) / (given + 0.5), number, key


# --- the judge against people ---------------------------------------------------------------------


def share(hits: Sequence[bool], weights: Sequence[float], level: float = 0.95) -> Estimate:
    """A weighted share with its Wilson interval at the effective number of labels.

    Source of the effective number, (sum w)^2 / sum w^2: Kish, Survey Sampling (1965) 11.2; in score
    intervals: Korn & Graubard, Survey Methodology 24 (1998) 193-201.
    """
    total = sum(weights)
    if not total:
        return Estimate(None, 0.0, 1.0, 0)
    value = sum(w for hit, w in zip(hits, weights, strict=True) if hit) / total
    effective = total * total / sum(w * w for w in weights)
    low, high = inference.wilson(min(value, 1.0) * effective, effective, level)
    return Estimate(value, low, high, len(hits))


def kappa(readings: Sequence[Reading], level: float = 0.95) -> Estimate:
    """Cohen's κ of judge and person in the whole set, from weighted labels (`cohen_kappa`).

    A verdict that was labelled more often than its share counts only for its share.
    """
    judge, person = [r.judge for r in readings], [r.person for r in readings]
    found = inference.cohen_kappa(judge, person, level, [r.weight for r in readings])
    return Estimate(found.kappa, found.low, found.high, found.n)


def confusion(readings: Sequence[Reading]) -> dict[str, dict[str, int]]:
    """Labels as counted: judge's label → person's label → answers. Not weighted."""
    table: dict[str, dict[str, int]] = {}
    for r in readings:
        row = table.setdefault(r.judge, {})
        row[r.person] = row.get(r.person, 0) + 1
    return {judge: dict(sorted(row.items())) for judge, row in sorted(table.items())}


# --- what it missed -------------------------------------------------------------------------------


def corrected(
    items: Sequence[Sequence[tuple[K, float]]],
    strata: Mapping[K, Stratum],
    level: float = 0.95,
) -> Estimate:
    """The mean of a signed sum of events per item, as people would have counted it.

    A rate is `[(stratum, +1)]` per item, a paired change `[(after's, +1), (before's, -1)]`. The
    estimate puts each stratum's labelled rate in the place of the judge's verdict. Its variance has
    two parts: between items, the spread of what is put in (they are a sample of what could have
    been asked); within strata, the doubt about each rate. The second is taken from Wilson intervals
    by the method of variance estimates recovery, so that a stratum in which three labels found no
    error is not taken for proof that there is none.

    Where the items are part of what a stratum holds (one cell of several), its rate is taken to be
    the same there: the judge errs alike on one attack, whatever the task.

    Source: Zou, Huang & Zhang, Comput. Stat. Data Anal. 53 (2009) 1080-1085, for linear functions
    of proportions; the two parts: Cochran, Sampling Techniques (1977) 12.2. What items have in
    common with their own labels is left out; it is of the order of one over their number.

    Args:
        items: (N,) for every item, strata and signs.
        strata: every stratum that occurs.
        level: two-sided.
    """
    n = len(items)
    if not n:
        return Estimate(None, -1.0, 1.0, 0)
    filled = np.array([sum(sign * strata[key].rate for key, sign in item) for item in items])
    parts: dict[K, float] = {}
    for item in items:
        for key, sign in item:
            parts[key] = parts.get(key, 0.0) + sign / n
    between = float(filled.var(ddof=1)) / n if n > 1 else 1.0
    z2 = inference.two_sided_z(level) ** 2
    down = up = z2 * between
    for key, part in parts.items():
        low, high = inference.wilson(strata[key].events, strata[key].labelled, level)
        under, over = strata[key].rate - low, high - strata[key].rate
        down += (part * (under if part > 0 else over)) ** 2
        up += (part * (over if part > 0 else under)) ** 2
    value = float(filled.mean())
    labelled = sum(strata[key].labelled for key in parts)
    floor = -1.0 if any(sign < 0 for item in items for _, sign in item) else 0.0
    return Estimate(
        value, max(floor, value - math.sqrt(down)), min(1.0, value + math.sqrt(up)), labelled
    )
