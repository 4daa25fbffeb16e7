"""Claims about a method: differences between training seeds, and how many seeds would decide.

One tuned model is a draw: another seed gives another model. A claim about a *method* (a sweep, a
grid, a published result re-measured) is therefore a claim over seeds, and its unit is the seed:
one paired difference per seed, both arms trained from that seed, and Student's t over them. Prompts
inside a seed add precision to each difference; they are no further seeds. The claim holds for the
items asked: another set of items is another question.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.statistics.inference import (
    Alternative,
    Paired,
    paired_t_interval,
    student_quantile,
    student_test,
)

POWER = 0.8
MOST = 1000
"""Seeds beyond which a number is no advice."""


@dataclass(frozen=True, slots=True)
class SeedClaim:
    """What the seeds say of one difference, in shares (0.05 is five points)."""

    seeds: int
    mean: float
    low: float
    """Ends of the two-sided t interval over seeds; infinite for one seed."""
    high: float
    between: float | None
    """Variance of the per-seed differences; None for one seed."""
    within: float | None
    """Mean sampling variance of one seed's difference, from its items; None where not given."""
    margin: float
    alternative: Alternative
    p: float
    """One-sided, of the difference against the margin."""
    decided: bool
    needed: int | None
    """Seeds that would decide with a power of 0.8, if mean and spread stay; None if decided, or if
    no number of seeds up to 1,000 would."""


def seed_interval(differences: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean of the per-seed differences with its two-sided t interval.

    Returns:
        (mean, low, high); the ends are infinite for a single seed, which knows no spread.

    Raises:
        ValueError: no differences, or one that is not a number.

    Source: Student, Biometrika 6 (1908) 1-25; as the interval over training runs in Bouthillier et
    al., MLSys 3 (2021), whose subject is that runs, not test items, carry most of the variance.
    """
    values = _checked(differences)
    low, high = paired_t_interval(values, level)
    return math.fsum(values) / len(values), low, high


def seed_test(
    differences: Sequence[float], margin: float = 0.0, alternative: Alternative = "below"
) -> float:
    """One-sided p-value over seeds of a mean difference against a margin.

    `below`: small p is evidence that the method's difference lies below the margin; `above`: that
    it lies above. 1 for a single seed. Agrees with the ends of `seed_interval`.

    Source: Student 1908.
    """
    return student_test(_checked(differences), margin, alternative)


def seeds_needed(
    differences: Sequence[float],
    margin: float = 0.0,
    power: float = POWER,
    level: float = 0.95,
) -> int | None:
    """Seeds with which `seed_test` would decide, if mean and spread stay as they are.

    The least number whose exact power (noncentral t) reaches `power`; at least two. None where the
    mean is the margin, where one seed shows no spread, or beyond 1,000.

    Source: Johnson & Welch, Biometrika 31 (1940) 362-389, for the power of a t test.
    """
    values = _checked(differences)
    effect = abs(math.fsum(values) / len(values) - margin)
    if len(values) < 2 or effect == 0:
        return None
    spread = float(np.std(values, ddof=1))
    if spread == 0:
        return 2
    enough = (n for n in range(2, MOST + 1) if t_power(effect / spread, n, level) >= power)
    return next(enough, None)


def t_power(effect: float, n: int, level: float = 0.95) -> float:
    """Power of the one-sided t test of n differences.

    P(Z + effect sqrt(n) > t S), Z standard normal, S the root of a chi-square over its n - 1
    degrees of freedom, t the critical value; integrated over S.

    Args:
        effect: mean over standard deviation.
        n: differences, at least two.
        level: of the test, one-sided.
    """
    df = n - 1
    critical = student_quantile(level, df)
    s = np.linspace(1e-6, 1 + 12 / math.sqrt(2 * df), 4001)  # (4001,)
    log_density = (df - 1) * np.log(s) - df * s * s / 2
    density = np.exp(log_density - log_density.max())
    reached = np.array([_normal_cdf(effect * math.sqrt(n) - critical * x) for x in s])
    return float(np.trapezoid(density * reached, s) / np.trapezoid(density, s))


def within_variance(tables: Sequence[Paired]) -> float:
    """Mean over seeds of the sampling variance of one seed's paired difference.

    (discordance - difference^2) / n for each seed: how far a seed's difference would move with
    other items of the same kind. Much smaller than the variance between seeds: more items would not
    help. Of the same size: they would.

    Source: variance of a paired difference of proportions, as in Tango, Statistics in Medicine 17
    (1998) 891-908, eq. 3.

    Raises:
        ValueError: a table without pairs, or no table.
    """
    if not tables or any(not table.n for table in tables):
        raise ValueError("every seed needs at least one pair")
    return math.fsum((t.discordance - t.difference**2) / t.n for t in tables) / len(tables)


def seed_claim(
    differences: Sequence[float],
    margin: float = 0.0,
    alternative: Alternative = "below",
    level: float = 0.95,
    tables: Sequence[Paired] | None = None,
) -> SeedClaim:
    """Everything the seeds say: interval, test, variance between and within, seeds that would do.

    Args:
        differences: one per seed, as shares.
        margin: what the difference is held against.
        alternative: the direction that is claimed.
        level: of the one-sided test; the interval is the matching two-sided one.
        tables: the seeds' paired outcomes, in the order of `differences`, for `within`.
    """
    mean, low, high = seed_interval(differences, 2 * level - 1)
    p = seed_test(differences, margin, alternative)
    decided = p < 1 - level
    many = len(differences) > 1
    return SeedClaim(
        seeds=len(differences),
        mean=mean,
        low=low,
        high=high,
        between=float(np.var(differences, ddof=1)) if many else None,
        within=within_variance(tables) if tables else None,
        margin=margin,
        alternative=alternative,
        p=p,
        decided=decided,
        needed=None if decided else seeds_needed(differences, margin, level=level),
    )


def _checked(differences: Sequence[float]) -> list[float]:
    values = [float(d) for d in differences]
    if not values or not all(map(math.isfinite, values)):
        raise ValueError(f"differences={values}: expected at least one, all of them finite")
    return values


def _normal_cdf(z: float) -> float:
    return math.erfc(-z / math.sqrt(2)) / 2
