"""Sequential evaluation: evidence that stays valid although one looks after every batch.

The wealth of a gambler who bets against a hypothesis, and who cannot expect to gain while it is
true, is an *e-value* at every moment: the chance that it ever exceeds 1/alpha is at most alpha
(Ville's inequality). So one may look after every batch, stop when the wealth suffices, and keep
the error rate. Against "the mean of `values` is m or more" the wealth after n values is

    E_n(m) = average over bets f of  product over i of  (1 + f (m - x_i) / (upper - m)),  0 < f < 1

and against "m or less" the mirror image. It needs values between `lower` and `upper` whose mean,
given what came before, is the same throughout: items in random order. No variance, no normal limit,
no least n. The bets are fixed beforehand and averaged, so the order of the values does not matter,
only how often each occurs.

Source: Waudby-Smith & Ramdas, J. R. Stat. Soc. B 86 (2024) 1-27 (betting on a bounded mean, its
confidence sequence by inversion, averages over a grid of bets); Robbins, Ann. Math. Stat. 41 (1970)
1397-1409 (mixtures); Ville, Étude critique de la notion de collectif (1939).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from holdfast.statistics.inference import Alternative

BETS = np.concatenate([np.geomspace(0.1, 0.98, 16), np.geomspace(0.002, 0.08, 8)])
"""(24,) shares of the largest bet allowed: those that pay within some hundred pairs; and small
ones, so that the confidence sequence goes on shrinking over many thousands."""
STAKES = np.array([0.9 / 16] * 16 + [0.1 / 8] * 8)
"""(24,) what is put on each bet at the start; together 1."""
_STEPS = 60

Values = Sequence[float] | NDArray[np.float64]


def log_wealth(
    values: Values,
    counts: Values,
    mean: float,
    alternative: Alternative = "below",
    *,
    lower: float = -1.0,
    upper: float = 1.0,
) -> NDArray[np.float64]:
    """Logarithm of the e-value after seeing values so many times.

    Args:
        values: (v,) what was seen, each between `lower` and `upper`.
        counts: (..., v) how often; expected (fractional) counts are allowed.
        mean: the hypothesised mean.
        alternative: `below` gathers evidence against a mean of `mean` or more, `above` against
            `mean` or less.
        lower: smallest value possible.
        upper: largest value possible.

    Returns:
        (...) natural logarithms.

    Raises:
        ValueError: a value beyond its bounds.
    """
    x = np.asarray(values, dtype=float)
    if x.size and not (lower <= x.min() and x.max() <= upper):
        raise ValueError(f"values from {x.min()} to {x.max()}: expected {lower} to {upper}")
    gain, stake = (mean - x, upper - mean) if alternative == "below" else (x - mean, mean - lower)
    tally = np.asarray(counts, dtype=float)
    if stake <= 0:  # no value can lie on the hypothesis' far side: nothing can speak against it
        return np.zeros(tally.shape[:-1])
    growth = np.log1p(np.outer(gain / stake, BETS))  # (v, bets)
    grown = tally @ growth  # (..., bets)
    top = grown.max(axis=-1, keepdims=True)
    total: NDArray[np.float64] = top[..., 0] + np.log(np.exp(grown - top) @ STAKES)
    return total


def e_p(
    values: Values,
    mean: float,
    alternative: Alternative = "below",
    *,
    lower: float = -1.0,
    upper: float = 1.0,
) -> float:
    """Anytime-valid p-value: 1 over the e-value, at most 1.

    Valid at every stopping time, so Holm's correction over cells that stopped at different times
    holds as it does for fixed-size p-values.

    Source: Vovk & Wang, Ann. Stat. 49 (2021) 1736-1754 (1/e is the calibrator from e to p).
    """
    seen, counts = _tally(values)
    if not seen.size:
        return 1.0
    wealth = float(log_wealth(seen, counts, mean, alternative, lower=lower, upper=upper))
    return min(1.0, math.exp(-wealth)) if wealth > 0 else 1.0


def confidence_sequence(
    values: Values, level: float = 0.95, *, lower: float = -1.0, upper: float = 1.0
) -> tuple[float, float]:
    """Interval of the mean that may be read after every value; two-sided, closed.

    All means that neither bet refutes at (1 - level) / 2. Each end is the matching one-sided bound:
    the upper end lies below a budget exactly when `e_p(values, budget)` is below (1 - level) / 2.
    """
    seen, counts = _tally(values)
    if not seen.size:
        return lower, upper
    enough = -math.log((1 - level) / 2)

    def refuted(mean: float, alternative: Alternative) -> bool:
        found = log_wealth(seen, counts, mean, alternative, lower=lower, upper=upper)
        return float(found) >= enough

    estimate = float(seen @ counts / counts.sum())
    high = _edge(lambda m: refuted(m, "below"), estimate, upper)
    low = _edge(lambda m: refuted(m, "above"), estimate, lower)
    return low, high


def resolvable_change(n: int, discordance: float, level: float = 0.95) -> float:
    """The smallest margin that n pairs show as held, one-sided, if the two models are equally bad.

    At the expected counts, n * discordance / 2 pairs each way. 1 where no margin is.
    """
    each = n * discordance / 2
    counts = [each, n - 2 * each, each]
    enough = -math.log(1 - level)

    def held(margin: float) -> bool:
        return float(log_wealth([-1, 0, 1], counts, margin)) >= enough

    return _edge(held, 0.0, 1.0)


def pairs_needed(
    margin: float,
    discordance: float,
    level: float = 0.95,
    difference: float = 0.0,
    most: int = 1_000_000,
) -> int | None:
    """Pairs after which the expected counts decide a margin; about half the runs need fewer.

    A difference beyond the margin gives the pairs that show it is exceeded. None beyond `most`, and
    where the difference is the margin.
    """
    if difference == margin:
        return None
    discordance = max(discordance, abs(difference))
    shares = [(discordance - difference) / 2, 1 - discordance, (discordance + difference) / 2]
    alternative: Alternative = "below" if difference < margin else "above"
    enough = -math.log(1 - level)

    def decided(n: int) -> bool:
        counts = [n * share for share in shares]
        return float(log_wealth([-1, 0, 1], counts, margin, alternative)) >= enough

    high = 1
    while not decided(high):
        high *= 2
        if high > most:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high


def _tally(values: Values) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distinct values, and how often each occurs."""
    seen, counts = np.unique(np.asarray(values, dtype=float), return_counts=True)
    return seen, counts.astype(float)


def _edge(refuted: Callable[[float], bool], inside: float, end: float) -> float:
    """Where refutation begins between a mean that stands and the far end."""
    if not refuted(end - 1e-12 * (1 if end > inside else -1)):
        return end
    stands, falls = inside, end
    for _ in range(_STEPS):
        middle = (stands + falls) / 2
        stands, falls = (stands, middle) if refuted(middle) else (middle, falls)
    return falls
