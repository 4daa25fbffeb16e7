"""Intervals, tests and sample sizes of the gate: pure functions of counts, numpy and nothing else.

An *event* is what a side counts (complied, refused, correct). A paired difference is always
`after - before` in rates between -1 and 1. A `level` is two-sided unless the name or the docstring
says one-sided; the one-sided 95 % bound is the matching end of the two-sided 90 % interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Sided = Literal["both", "lower", "upper"]
Alternative = Literal["below", "above"]

_NORMAL = NormalDist()
_HALVINGS = 200
"""Bisection steps: more than enough to exhaust the bits of a double."""

SMALL = 30
"""Below so many pairs the exact test decides."""
EXACT = 500
"""Up to so many pairs an exact p-value is affordable (a quarter of a second)."""
BORDERLINE, CERTAIN = 0.1, 1e-8
"""Score p-values between which the exact one is worth its time."""


# --- One rate -----------------------------------------------------------------------------------


def normal_quantile(probability: float) -> float:
    """Standard normal quantile."""
    return _NORMAL.inv_cdf(probability)


def two_sided_z(level: float) -> float:
    """The z of a two-sided interval: 1.96 for 0.95."""
    _check_open("level", level)
    return normal_quantile(0.5 + level / 2)


def wilson(events: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Score interval of one rate, (0, 1) when nothing was counted; fractional counts are allowed.

    Source: Wilson, JASA 22 (1927) 209-212; Brown, Cai & DasGupta, Stat. Sci. 16 (2001), eq. 4.
    """
    if not 0 <= events <= n:
        raise ValueError(f"events={events} of n={n}: expected 0 <= events <= n")
    if n == 0:
        return 0.0, 1.0
    z2 = two_sided_z(level) ** 2
    rate = events / n
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (rate * (1 - rate) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    low = 0.0 if events == 0 else max(0.0, centre - half)
    high = 1.0 if events == n else min(1.0, centre + half)
    return low, high


# --- Paired binary outcomes ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Paired:
    """The same items judged twice, as a 2x2 count of the event."""

    both: int
    only_before: int
    only_after: int
    neither: int

    def __post_init__(self) -> None:
        if min(self.both, self.only_before, self.only_after, self.neither) < 0:
            raise ValueError(f"{self}: counts cannot be negative")

    @classmethod
    def of(cls, before: Sequence[bool], after: Sequence[bool]) -> Paired:
        """Count two equally long lists of outcomes, item by item."""
        cells = [(bool(b), bool(a)) for b, a in zip(before, after, strict=True)]
        return cls(
            both=cells.count((True, True)),
            only_before=cells.count((True, False)),
            only_after=cells.count((False, True)),
            neither=cells.count((False, False)),
        )

    @property
    def n(self) -> int:
        """Pairs."""
        return self.both + self.only_before + self.only_after + self.neither

    @property
    def before(self) -> int:
        """Events before."""
        return self.both + self.only_before

    @property
    def after(self) -> int:
        """Events after."""
        return self.both + self.only_after

    @property
    def discordant(self) -> int:
        """Pairs that changed."""
        return self.only_before + self.only_after

    @property
    def discordance(self) -> float:
        """Share of pairs that changed, 0 for no pairs."""
        return self.discordant / self.n if self.n else 0.0

    @property
    def difference(self) -> float:
        """Rate after minus rate before, 0 for no pairs."""
        return (self.only_after - self.only_before) / self.n if self.n else 0.0

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Tango's interval of the difference, two-sided."""
        return tango_interval(self.only_after, self.only_before, self.n, level)


def tango_score(only_after: float, only_before: float, n: float, difference: float) -> float:
    """Score statistic of a hypothesised paired difference; falls as `difference` grows.

    (b - c - n d) / sqrt(n (2 q + d (1 - d))), where q estimates the rate of `only_before` pairs
    under the hypothesis: the larger root of 2n q^2 + (-b - c + (2n - b + c) d) q - c d (1 - d) = 0.
    Infinite where the hypothesis leaves no variance and does not fit, 0 where it fits exactly.

    Source: Tango, Statistics in Medicine 17 (1998) 891-908, eqs. 17-19.
    """
    rate = _restricted_rate(only_after / n, only_before / n, difference)
    variance = 2 * rate + difference * (1 - difference)
    gap = (only_after - only_before) / n - difference
    if abs(gap) < 1e-15:
        return 0.0
    if variance <= 0:
        return math.copysign(math.inf, gap)
    return gap * math.sqrt(n / variance)


def _restricted_rate(after: float, before: float, difference: float) -> float:
    """Tango's q for rates of the two discordant cells, without cancellation."""
    b = -after - before + (2 - after + before) * difference
    c = -before * difference * (1 - difference)
    root = math.sqrt(max(0.0, b * b - 8 * c))
    rate = -2 * c / (b + root) if b > 0 else (root - b) / 4
    return max(rate, 0.0, -difference)


def tango_interval(
    only_after: float, only_before: float, n: float, level: float = 0.95
) -> tuple[float, float]:
    """Score interval of the paired difference; two-sided, closed, inside [-1, 1].

    Knows n without a single discordant pair: then the ends are -+ z^2 / (n + z^2). (-1, 1) when
    n = 0. Expected (fractional) counts are allowed.

    Source: Tango 1998 (see `tango_score`), inverted by bisection.
    """
    _check_pairs(only_after, only_before, n)
    z = two_sided_z(level)
    if n == 0:
        return -1.0, 1.0
    return -_tango_upper(only_before, only_after, n, z), _tango_upper(only_after, only_before, n, z)


def tango_bound(only_after: float, only_before: float, n: float, level: float = 0.95) -> float:
    """One-sided upper bound of the paired difference."""
    _check_pairs(only_after, only_before, n)
    _check_open("level", level)
    return _tango_upper(only_after, only_before, n, normal_quantile(level)) if n else 1.0


@lru_cache(maxsize=4096)
def _tango_upper(only_after: float, only_before: float, n: float, z: float) -> float:
    estimate = (only_after - only_before) / n
    return _bisect(lambda d: tango_score(only_after, only_before, n, d) + z, estimate, 1.0)


def tango_p(
    only_after: float,
    only_before: float,
    n: float,
    margin: float,
    alternative: Alternative = "below",
) -> float:
    """Score-test p-value of a paired difference against a margin.

    `below` is non-inferiority for an event of which more is worse: the hypothesis
    `difference >= margin` is given up for small p. `above` is the reverse: evidence that the
    difference exceeds the margin. Agrees with the ends of `tango_interval`.

    Source: Tango 1998, eq. 21.
    """
    _check_pairs(only_after, only_before, n)
    _check_margin(margin)
    if n == 0:
        return 1.0
    score = tango_score(only_after, only_before, n, margin)
    return _NORMAL.cdf(score if alternative == "below" else -score)


@lru_cache(maxsize=4096)
def exact_noninferiority_p(
    only_after: int,
    only_before: int,
    n: int,
    margin: float,
    alternative: Alternative = "below",
) -> float:
    """Exact unconditional p-value of a paired difference against a margin; for n up to about 500.

    Outcomes are ordered by Tango's score; p is the largest probability, over the free rate of
    `only_before` pairs, of a score at least as extreme. Unconditional, because given the number of
    discordant pairs their split does not determine the difference unless the margin is 0, so there
    is no conditional test of a margin. The hypothesis' edge is its least favourable part.

    Source: Hsueh, Liu & Chen, Biometrics 57 (2001) 478-483; Sidik, Stat. in Medicine 22 (2003).
    """
    _check_pairs(only_after, only_before, n)
    _check_margin(margin)
    if n == 0:
        return 1.0
    if alternative == "above":
        only_after, only_before, margin = only_before, only_after, -margin
    tail = _extreme_outcomes(only_after, only_before, n, margin)

    low, high = max(0.0, -margin), (1 - margin) / 2
    best = 0.0
    for _ in range(4):
        grid = np.linspace(low, high, 33)
        tails = tail(grid)
        top = int(np.argmax(tails))
        best = max(best, float(tails[top]))
        low, high = float(grid[max(top - 1, 0)]), float(grid[min(top + 1, 32)])
    return min(1.0, best)


def _extreme_outcomes(
    only_after: int, only_before: int, n: int, margin: float
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Probability of outcomes as low as the observed one, given rates (r,) of `only_before`."""
    observed = tango_score(only_after, only_before, n, margin)
    after, before = _outcomes(n)
    extreme = _tango_scores(after, before, n, margin) <= observed + 1e-9
    after, before = after[extreme], before[extreme]
    counts = np.stack([after, before, n - after - before], axis=1)  # (outcomes, 3)
    factorials = np.array([math.lgamma(k + 1) for k in range(n + 1)])
    weights = factorials[n] - factorials[counts].sum(axis=1)

    def tail(rates: NDArray[np.float64]) -> NDArray[np.float64]:
        chances = np.stack([rates + margin, rates, 1 - 2 * rates - margin])  # (3, r)
        logs = np.log(np.clip(chances, 1e-300, 1.0))
        total: NDArray[np.float64] = np.exp(weights[:, None] + counts @ logs).sum(axis=0)
        return total

    return tail


@lru_cache(maxsize=8)
def _outcomes(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All (only_after, only_before) of n pairs."""
    after, before = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    fits = after + before <= n
    return after[fits], before[fits]


def _tango_scores(
    after: NDArray[np.int64], before: NDArray[np.int64], n: int, difference: float
) -> NDArray[np.float64]:
    """`tango_score` of many outcomes at once."""
    a, b = after / n, before / n
    linear = -a - b + (2 - a + b) * difference
    constant = -b * difference * (1 - difference)
    root = np.sqrt(np.maximum(0.0, linear**2 - 8 * constant))
    plus = linear > 0
    stable = -2 * constant / np.where(plus, linear + root, 1.0)
    rate = np.maximum(np.where(plus, stable, (root - linear) / 4), max(0.0, -difference))
    variance = 2 * rate + difference * (1 - difference)
    gap = a - b - difference
    limit = np.copysign(np.inf, gap)
    score = np.where(variance > 0, gap * np.sqrt(n / np.where(variance > 0, variance, 1)), limit)
    return np.where(np.abs(gap) < 1e-15, 0.0, score)


@lru_cache(maxsize=1024)
def exact_bound(only_after: int, only_before: int, n: int, level: float = 0.95) -> float:
    """One-sided upper bound of the paired difference that inverts `exact_noninferiority_p`.

    To 0.0001, rounded up; 1 for no pairs. The lower bound is minus the bound of the counts changed
    round.
    """
    _check_pairs(only_after, only_before, n)
    _check_open("level", level)
    if n == 0:
        return 1.0
    low, high = (only_after - only_before) / n, 1.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        inside = exact_noninferiority_p(only_after, only_before, n, middle) > 1 - level
        low, high = (middle, high) if inside else (low, middle)
    return high


def paired_bound(only_after: int, only_before: int, n: int, level: float = 0.95) -> float:
    """The gate's one-sided upper bound: exact below 30 pairs, Tango's score beyond."""
    bound = exact_bound if n < SMALL else tango_bound
    return bound(only_after, only_before, n, level)


def noninferiority_p(
    only_after: int, only_before: int, n: int, margin: float, alternative: Alternative = "below"
) -> float:
    """The gate's test of a paired difference: exact below 30 pairs, Tango's score beyond."""
    test = exact_noninferiority_p if n < SMALL else tango_p
    return test(only_after, only_before, n, margin, alternative)


def exceedance_p(only_after: int, only_before: int, n: int, margin: float) -> float:
    """The gate's evidence that a paired difference exceeds a margin.

    Exact below 30 pairs. Up to 500, where the score's p is small, the larger of it and the exact p:
    far out, where a correction over many cells reads it, the score's tail is too light if all
    changes go one way. Beyond 500 the score's.
    """
    p = noninferiority_p(only_after, only_before, n, margin, "above")
    if SMALL <= n <= EXACT and CERTAIN < p < BORDERLINE:
        return max(p, exact_noninferiority_p(only_after, only_before, n, margin, "above"))
    return p


def mcnemar_exact(only_before: int, only_after: int) -> float:
    """Two-sided exact p-value that the two discordant counts are equally likely.

    Twice the smaller binomial tail, at most 1.

    Source: McNemar, Psychometrika 12 (1947) 153-157, with the binomial for its normal limit.
    """
    total = only_before + only_after
    if min(only_before, only_after) < 0:
        raise ValueError(f"discordant counts {only_before} and {only_after} cannot be negative")
    tail = sum(math.comb(total, k) for k in range(min(only_before, only_after) + 1))
    return min(1.0, float(2 * tail / 2**total))


def binomial_tail(events: int, n: int, rate: float) -> float:
    """Probability of at least `events` of n at the given rate: exact one-sided p of a rate."""
    _check_share("rate", rate)
    if events <= 0:
        return 1.0
    return incomplete_beta(events, n - events + 1, rate) if events <= n else 0.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of one family, in the order given; compare each with the family's level.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    if any(not 0 <= p <= 1 for p in p_values):
        raise ValueError("p-values must lie between 0 and 1")
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    floor = 0.0
    for rank, index in enumerate(order):
        floor = max(floor, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = floor
    return adjusted


# --- What a sample can decide -------------------------------------------------------------------


def resolvable_change(n: int, discordance: float, level: float = 0.95) -> float:
    """The smallest margin that n pairs can show as held if nothing changes at all.

    The one-sided Tango bound at the expected counts n * discordance / 2 in both discordant cells;
    z^2 / (n + z^2) when nothing is discordant, about z * sqrt(discordance / n) otherwise. Below 30
    pairs never less than the exact bound of no discordance, 1 - (1 - level)^(1 / n).
    """
    _check_share("discordance", discordance)
    bound = tango_bound(n * discordance / 2, n * discordance / 2, n, level)
    return max(bound, 1 - (1 - level) ** (1 / n)) if 0 < n < SMALL else bound


def pairs_needed(
    margin: float,
    discordance: float,
    power: float = 0.8,
    level: float = 0.95,
    difference: float = 0.0,
) -> int:
    """Pairs with which the one-sided score test decides `margin` with the given power.

    n = ((z_level sqrt(V0) + z_power sqrt(V1)) / (margin - difference))^2 with the variance per pair
    under the true `difference`, V1 = discordance - difference^2, and under the margin,
    V0 = 2 q + margin (1 - margin). Without discordance this is z^2 (1 - margin) / margin, the n at
    which `resolvable_change` is the margin. A difference beyond the margin gives the pairs that
    show it is exceeded. Below 30 pairs at least as many as the exact test needs if nothing changes.

    Source: Nam, Biometrics 53 (1997) 1422-1430; Liu et al., Stat. in Medicine 21 (2002) 231-245.
    """
    _check_margin(margin)
    _check_share("discordance", discordance)
    _check_open("power", power)
    _check_open("level", level)
    if margin == difference:
        raise ValueError(f"a true difference equal to the margin {margin} can never be decided")
    discordance = max(discordance, abs(difference))
    after, before = (discordance + difference) / 2, (discordance - difference) / 2
    at_margin = 2 * _restricted_rate(after, before, margin) + margin * (1 - margin)
    at_truth = max(0.0, discordance - difference * difference)
    reach = normal_quantile(level) * math.sqrt(max(0.0, at_margin))
    reach += normal_quantile(power) * math.sqrt(at_truth)
    pairs = max(1, math.ceil((reach / (margin - difference)) ** 2 - 1e-9))
    if pairs < SMALL and difference < margin and 0 < margin < 1:
        exact = math.ceil(math.log(1 - level) / math.log(1 - margin) - 1e-9)
        pairs = max(pairs, min(SMALL, exact))
    return pairs


# --- Continuous differences ---------------------------------------------------------------------


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function I_x(a, b), to about 1e-12.

    Source: continued fraction of Abramowitz & Stegun 26.5.8, by Lentz's method, with
    I_x(a, b) = 1 - I_(1-x)(b, a) where it converges faster.
    """
    if not 0 <= x <= 1:
        raise ValueError(f"x={x} must lie between 0 and 1")
    if x in (0.0, 1.0):
        return x
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front += a * math.log(x) + b * math.log1p(-x)
    return math.exp(front) * _beta_fraction(a, b, x) / a


def _beta_fraction(a: float, b: float, x: float) -> float:
    tiny = 1e-300
    c, d = 1.0, 1 / _away_from_zero(1 - (a + b) * x / (a + 1), tiny)
    value = d
    for m in range(1, 10_000):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away_from_zero(1 + step * d, tiny)
            c = _away_from_zero(1 + step / c, tiny)
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value


def _away_from_zero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny


def student_cdf(t: float, df: float) -> float:
    """Student's t distribution function (Abramowitz & Stegun 26.7.1)."""
    if df <= 0:
        raise ValueError(f"df={df} must be positive")
    tail = incomplete_beta(df / 2, 0.5, df / (df + t * t)) / 2
    return 1 - tail if t > 0 else tail


def student_quantile(probability: float, df: float) -> float:
    """Student's t quantile, by bisection of `student_cdf`."""
    _check_open("probability", probability)
    if probability == 0.5:
        return 0.0
    if probability > 0.5:
        return -student_quantile(1 - probability, df)
    low = -1.0
    while student_cdf(low, df) > probability:
        low *= 2
    return _bisect(lambda t: student_cdf(t, df) - probability, low, 0.0)


def paired_t_interval(
    differences: Sequence[float] | NDArray[np.float64],
    level: float = 0.95,
    sided: Sided = "both",
) -> tuple[float, float]:
    """Interval of the mean of paired differences, from their own spread (for example per seed).

    `lower` and `upper` give a one-sided bound of that level, the other end infinite. Fewer than two
    differences know nothing: both ends infinite.

    Source: Student, Biometrika 6 (1908) 1-25.
    """
    _check_open("level", level)
    values = np.asarray(differences, dtype=float)  # (n,)
    n = len(values)
    if n < 2:
        return -math.inf, math.inf
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(n)
    half = error * student_quantile(0.5 + level / 2 if sided == "both" else level, n - 1)
    low = -math.inf if sided == "upper" else mean - half
    high = math.inf if sided == "lower" else mean + half
    return low, high


def student_test(
    differences: Sequence[float] | NDArray[np.float64],
    margin: float = 0.0,
    alternative: Alternative = "below",
) -> float:
    """One-sided t test of the mean of paired differences against a margin.

    `below`: small p is evidence that the mean is below the margin; `above`: that it is above. 1 for
    fewer than two differences; without any spread 0 or 1, as the mean is on the claimed side or
    not. Agrees with the ends of `paired_t_interval`.

    Source: Student, Biometrika 6 (1908) 1-25.
    """
    values = np.asarray(differences, dtype=float)  # (n,)
    n = len(values)
    if n < 2:
        return 1.0
    gap = float(values.mean()) - margin
    gap = gap if alternative == "above" else -gap
    spread = float(values.std(ddof=1))
    if spread == 0:
        return 0.0 if gap > 0 else 1.0
    return student_cdf(-gap * math.sqrt(n) / spread, n - 1)


# --- Equivalence --------------------------------------------------------------------------------


def equivalence_p(only_after: int, only_before: int, n: int, margin: float) -> float:
    """Two one-sided tests: evidence that a paired difference lies within -+ margin.

    The larger of the two one-sided p-values: exact below 30 pairs, Tango's score beyond. Below
    0.05 exactly where the two-sided 90 % interval lies inside the margins.

    Source: Schuirmann, J. Pharmacokin. Biopharm. 15 (1987) 657-680; for paired proportions Liu et
    al., Stat. in Medicine 21 (2002) 231-245.

    Raises:
        ValueError: a margin that is not positive.
    """
    if margin <= 0:
        raise ValueError(f"margin={margin}: an equivalence margin is positive")
    return max(
        noninferiority_p(only_after, only_before, n, margin),
        noninferiority_p(only_after, only_before, n, -margin, "above"),
    )


def mean_equivalence_p(differences: Sequence[float], margin: float) -> float:
    """Two one-sided t tests: evidence that a mean paired difference lies within -+ margin.

    Source: Schuirmann 1987 (see `equivalence_p`).

    Raises:
        ValueError: a margin that is not positive.
    """
    if margin <= 0:
        raise ValueError(f"margin={margin}: an equivalence margin is positive")
    return max(student_test(differences, margin), student_test(differences, -margin, "above"))


# --- Agreement ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two raters agree beyond chance."""

    n: int
    observed: float
    """Share of equal labels; 0 for no items."""
    kappa: float | None
    """None where it is undefined: no items, or one label used throughout by both."""
    low: float
    high: float


def cohen_kappa(
    a: Sequence[object],
    b: Sequence[object],
    level: float = 0.95,
    weights: Sequence[float] | None = None,
) -> Agreement:
    """Cohen's kappa of two lists of labels with its large-sample interval, clipped to [-1, 1].

    With `weights` a pair counts as much as its weight, and the variance is that of the table at the
    effective number of pairs, (Σ w)² / Σ w².

    With perfect agreement the estimated variance is 0; the lower end then takes the Wilson bound of
    the observed agreement in its place, so that a small sample is not taken for proof.

    Source: Cohen, Educ. Psychol. Meas. 20 (1960) 37-46; variance: Fleiss, Cohen & Everitt,
    Psychol. Bull. 72 (1969) 323-327, eq. 13.
    """
    pairs = list(zip(a, b, strict=True))
    n = len(pairs)
    if n == 0:
        return Agreement(0, 0.0, None, -1.0, 1.0)
    names = {name: i for i, name in enumerate(dict.fromkeys([*a, *b]))}
    each = [1.0] * n if weights is None else weights
    effective = sum(each) ** 2 / sum(w * w for w in each)
    table = np.zeros((len(names), len(names)))  # (labels, labels)
    for (x, y), weight in zip(pairs, each, strict=True):
        table[names[x], names[y]] += weight
    table /= table.sum()
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    observed, chance = float(np.trace(table)), float(rows @ columns)
    if len(names) == 1:
        return Agreement(n, 1.0, None, -1.0, 1.0)
    kappa = (observed - chance) / (1 - chance)
    if all(x == y for x, y in pairs):
        least = wilson(effective, effective, level)[0]
        return Agreement(n, 1.0, 1.0, max(-1.0, (least - chance) / (1 - chance)), 1.0)

    agreeing = np.diag(table) @ (1 - (rows + columns) * (1 - kappa)) ** 2
    spread = (columns[:, None] + rows[None, :]) ** 2  # (labels, labels), column i with row j
    apart = (table * spread).sum() - (np.diag(table) * np.diag(spread)).sum()
    variance = agreeing + (1 - kappa) ** 2 * apart - (kappa - chance * (1 - kappa)) ** 2
    half = two_sided_z(level) * math.sqrt(max(0.0, float(variance)) / effective) / (1 - chance)
    return Agreement(n, observed, kappa, max(-1.0, kappa - half), min(1.0, kappa + half))


# --- Helpers ------------------------------------------------------------------------------------


def _bisect(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a monotone function changes sign between low and high; `high` if it does not."""
    rising = function(low) < 0
    if (function(high) < 0) == rising:
        return high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if (function(middle) < 0) == rising:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _check_open(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name}={value} must lie between 0 and 1, ends excluded")


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value} must lie between 0 and 1")


def _check_margin(margin: float) -> None:
    if not -1 <= margin <= 1:
        raise ValueError(f"margin={margin} must lie between -1 and 1 (a rate, not points)")


def _check_pairs(only_after: float, only_before: float, n: float) -> None:
    if min(only_after, only_before) < 0 or only_after + only_before > n * (1 + 1e-12):
        raise ValueError(
            f"only_after={only_after} and only_before={only_before} do not fit into n={n} pairs"
        )
