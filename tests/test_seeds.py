"""Claims over training seeds: the seed is the unit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.statistics.inference import Paired
from holdfast.statistics.seeds import (
    seed_claim,
    seed_interval,
    seed_test,
    seeds_needed,
    t_power,
    within_variance,
)

shares = st.lists(st.floats(-1, 1), min_size=2, max_size=12)


def test_three_seeds_by_hand() -> None:
    mean, low, high = seed_interval([0.01, 0.02, 0.03])
    assert mean == pytest.approx(0.02)
    assert (low, high) == pytest.approx((0.02 - 0.0248414, 0.02 + 0.0248414), abs=1e-6)


def test_one_seed_knows_no_spread() -> None:
    assert seed_interval([0.1]) == (0.1, -math.inf, math.inf)
    assert seed_test([0.1], 0.5) == 1.0
    assert seeds_needed([0.1]) is None
    claim = seed_claim([0.1], alternative="above")
    assert not claim.decided and claim.between is None and claim.needed is None


@pytest.mark.parametrize("bad", [[], [0.1, math.nan], [math.inf]])
def test_what_is_no_difference_is_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one, all of them finite"):
        seed_interval(bad)


@given(shares, st.floats(-0.5, 0.5))
@settings(max_examples=60, deadline=None)
def test_the_test_agrees_with_the_interval(differences: list[float], margin: float) -> None:
    _, _, high = seed_interval(differences, 0.9)
    p = seed_test(differences, margin)
    if abs(high - margin) > 1e-9 and np.std(differences) > 1e-9:
        assert (p < 0.05) == (high < margin)
        assert p + seed_test(differences, margin, "above") == pytest.approx(1)


def test_against_scipy_and_statsmodels() -> None:
    scipy = pytest.importorskip("scipy.stats")
    power = pytest.importorskip("statsmodels.stats.power")
    sample = [-0.04, -0.01, -0.06, 0.01, -0.03]
    for margin in (0.0, 0.02, -0.05):
        for ours, theirs in (("below", "less"), ("above", "greater")):
            expected = scipy.ttest_1samp(sample, margin, alternative=theirs).pvalue
            assert seed_test(sample, margin, ours) == pytest.approx(expected)
    ends = scipy.ttest_1samp(sample, 0).confidence_interval(0.95)
    assert seed_interval(sample)[1:] == pytest.approx((ends.low, ends.high))
    for effect, n in ((0.5, 3), (1.0, 8), (2.0, 4), (0.3, 60)):
        expected = power.TTestPower().power(effect, n, 0.05, alternative="larger")
        assert t_power(effect, n) == pytest.approx(expected, abs=1e-4)
    effect = abs(np.mean(sample)) / np.std(sample, ddof=1)
    exact = power.TTestPower().solve_power(effect, None, 0.05, 0.8, alternative="larger")
    assert seeds_needed(sample) == math.ceil(exact)


def test_how_many_seeds_would_decide() -> None:
    wide = [0.01, -0.03, 0.05]
    assert seeds_needed(wide) > 3
    assert seeds_needed(wide, margin=0.5) == 2
    assert seeds_needed([0.1, 0.1]) == 2
    assert seeds_needed([0.1, -0.1]) is None  # the mean is the margin


def test_a_claim_says_what_it_rests_on() -> None:
    tables = [Paired(10, 30, 10, 150), Paired(10, 40, 8, 142), Paired(12, 26, 12, 150)]
    differences = [t.difference for t in tables]
    claim = seed_claim(differences, tables=tables)
    assert claim.seeds == 3 and claim.low <= claim.mean <= claim.high
    assert claim.between == pytest.approx(np.var(differences, ddof=1))
    assert claim.within == pytest.approx(
        np.mean([(t.discordance - t.difference**2) / 200 for t in tables])
    )
    assert claim.decided == (claim.high < 0)
    assert (claim.needed is None) == claim.decided
    with pytest.raises(ValueError, match="at least one pair"):
        within_variance([])


def test_coverage_and_level_over_seeds() -> None:
    """Three to eight seeds from a normal: 95 % cover, 5 % are claimed at the margin."""
    rng = np.random.default_rng(0)
    for seeds in (3, 8):
        covered = claimed = 0
        for draws in rng.normal(0.02, 0.03, size=(400, seeds)):
            _, low, high = seed_interval(draws)
            covered += low <= 0.02 <= high
            claimed += seed_test(draws, 0.02) < 0.05
        assert covered / 400 == pytest.approx(0.95, abs=0.035)
        assert claimed / 400 == pytest.approx(0.05, abs=0.035)


def test_a_bootstrap_over_three_seeds_would_not_cover() -> None:
    """Why the interval is Student's: resampling three seeds covers far less than it says."""
    rng = np.random.default_rng(1)
    picks = rng.integers(0, 3, size=(400, 3))
    covered = 0
    for draws in rng.normal(0, 1, size=(300, 3)):
        low, high = np.quantile(draws[picks].mean(axis=1), [0.025, 0.975])
        covered += low <= 0 <= high
    assert covered / 300 < 0.85
