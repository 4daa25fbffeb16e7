import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from holdfast.statistics.inference import (
    Paired,
    cohen_kappa,
    equivalence_p,
    exact_bound,
    exact_noninferiority_p,
    exceedance_p,
    holm,
    incomplete_beta,
    mcnemar_exact,
    mean_equivalence_p,
    normal_quantile,
    paired_bound,
    paired_t_interval,
    pairs_needed,
    resolvable_change,
    student_cdf,
    student_quantile,
    student_test,
    tango_bound,
    tango_interval,
    tango_p,
    tango_score,
    two_sided_z,
    wilson,
)

Z = 1.6448536269514722


@st.composite
def tables(draw: st.DrawFn, most: int = 200) -> tuple[int, int, int]:
    """only_after, only_before, n."""
    n = draw(st.integers(1, most))
    after = draw(st.integers(0, n))
    return after, draw(st.integers(0, n - after)), n


# --- One rate -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("probability", "z"), [(0.5, 0.0), (0.9, 1.281552), (0.95, 1.644854), (0.975, 1.959964)]
)
def test_normal_quantile(probability: float, z: float) -> None:
    assert normal_quantile(probability) == pytest.approx(z, abs=1e-6)


@pytest.mark.parametrize(
    ("events", "n", "low", "high"),
    [  # Newcombe, Stat. in Medicine 17 (1998) 857-872, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson(events: int, n: int, low: float, high: float) -> None:
    assert wilson(events, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_ends_are_closed_and_know_n() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 100)[1] == pytest.approx(0.037, abs=5e-4)
    assert wilson(7, 7)[1] == 1.0
    with pytest.raises(ValueError, match="events=3 of n=2"):
        wilson(3, 2)


@given(st.integers(1, 500), st.data())
def test_wilson_solves_the_score_equation(n: int, data: st.DataObject) -> None:
    events = data.draw(st.integers(1, n))
    low, high = wilson(events, n)
    assert low <= events / n <= high
    z = (events / n - low) / math.sqrt(low * (1 - low) / n)
    assert z == pytest.approx(two_sided_z(0.95))
    assert wilson(n - events, n) == pytest.approx((1 - high, 1 - low))


# --- Paired rates -------------------------------------------------------------------------------


def test_paired_counts() -> None:
    table = Paired.of([True, True, False, False, False], [True, False, True, True, False])
    assert table == Paired(both=1, only_before=1, only_after=2, neither=1)
    assert (table.n, table.before, table.after, table.discordant) == (5, 2, 3, 3)
    assert table.difference == pytest.approx(0.2)
    assert table.interval() == tango_interval(2, 1, 5)
    assert Paired(0, 0, 0, 0).difference == 0
    with pytest.raises(ValueError, match="negative"):
        Paired(0, -1, 0, 0)
    with pytest.raises(ValueError):
        Paired.of([True], [])


def test_tango_published_example() -> None:
    """Airway hyper-responsiveness, 1/1/7/12: Fagerland et al., Stat. in Medicine 33 (2014)."""
    assert tango_interval(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)


@pytest.mark.parametrize("n", [1, 2, 7, 60, 400, 100_000])
def test_tango_without_discordance_knows_n(n: int) -> None:
    bound = Z * Z / (n + Z * Z)
    assert tango_interval(0, 0, n, 0.9) == pytest.approx((-bound, bound))
    assert tango_bound(0, 0, n) == pytest.approx(bound)


def test_tango_at_its_ends() -> None:
    assert tango_interval(0, 0, 0) == (-1.0, 1.0)
    assert tango_interval(5, 0, 5)[1] == 1.0
    assert tango_interval(0, 5, 5)[0] == -1.0
    assert tango_interval(1, 0, 1)[0] > -1
    with pytest.raises(ValueError, match="do not fit"):
        tango_interval(3, 3, 5)


@settings(max_examples=150, deadline=None)
@given(tables(), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_tango_interval_properties(table: tuple[int, int, int], level: float) -> None:
    after, before, n = table
    low, high = tango_interval(after, before, n, level)
    estimate = (after - before) / n
    assert -1 <= low <= estimate <= high <= 1
    assert tango_interval(before, after, n, level) == pytest.approx((-high, -low), abs=1e-9)
    wider = tango_interval(after, before, n, (1 + level) / 2)
    assert wider[0] <= low and high <= wider[1]
    larger = tango_interval(10 * after, 10 * before, 10 * n, level)
    assert larger[1] - larger[0] < high - low
    if high < 1:
        assert tango_score(after, before, n, high) == pytest.approx(-two_sided_z(level), abs=1e-6)
    if low > -1:
        assert tango_score(after, before, n, low) == pytest.approx(two_sided_z(level), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(tables(60), st.floats(-0.9, 0.9))
def test_tango_rate_is_the_restricted_maximum(table: tuple[int, int, int], margin: float) -> None:
    """The score's variance uses the likeliest rates that differ by the margin: brute force."""
    after, before, n = table
    gap = (after - before) / n - margin
    assume(abs(gap) > 1e-3 and after and before)
    q = np.linspace(max(0, -margin), (1 - margin) / 2, 20_001)[1:-1]
    likelihood = after * np.log(q + margin) + before * np.log(q)
    likelihood += (n - after - before) * np.log(1 - 2 * q - margin)
    best = float(q[np.argmax(likelihood)])
    expected = gap * math.sqrt(n / (2 * best + margin * (1 - margin)))
    assert tango_score(after, before, n, margin) == pytest.approx(expected, rel=5e-3)


@settings(max_examples=100, deadline=None)
@given(tables(), st.floats(-0.99, 0.98), st.floats(0.001, 0.2))
def test_tango_p_is_monotone_and_two_faced(
    table: tuple[int, int, int], margin: float, step: float
) -> None:
    after, before, n = table
    p = tango_p(after, before, n, margin)
    assert 0 <= p <= 1
    assert tango_p(after, before, n, min(1.0, margin + step)) <= p + 1e-12
    assert p + tango_p(after, before, n, margin, "above") == pytest.approx(1)
    assert p == pytest.approx(tango_p(before, after, n, -margin, "above"), abs=1e-9)
    bound = tango_bound(after, before, n)
    if abs(bound - margin) > 1e-9:
        assert (p < 0.05) == (bound < margin)


def test_margins_are_rates() -> None:
    with pytest.raises(ValueError, match="not points"):
        tango_p(0, 0, 10, 5)
    assert tango_p(0, 0, 0, 0.05) == 1.0


def test_exact_p_without_discordance() -> None:
    """Most likely at the edge: all change is one-way, so p = (1 - margin)^n."""
    assert exact_noninferiority_p(0, 0, 20, 0.1) == pytest.approx(0.9**20, rel=1e-6)
    assert exact_noninferiority_p(0, 0, 0, 0.1) == 1.0


def test_exact_p_is_mirrored_and_monotone() -> None:
    for after, before in [(0, 0), (1, 3), (4, 1), (12, 0)]:
        p = [exact_noninferiority_p(after, before, 12, m) for m in (0.05, 0.2, 0.5)]
        assert p == sorted(p, reverse=True) and all(0 <= x <= 1 for x in p)
        mirrored = exact_noninferiority_p(before, after, 12, -0.2, "above")
        assert mirrored == pytest.approx(p[1])


def test_exact_p_keeps_its_level() -> None:
    n, margin, rng = 15, 0.2, np.random.default_rng(1)
    for q in (0.0, 0.1, 0.3):
        draws = rng.multinomial(n, [q + margin, q, 1 - 2 * q - margin], size=3000)
        pairs, counts = np.unique(draws[:, :2], axis=0, return_counts=True)
        p = np.array([exact_noninferiority_p(int(b), int(c), n, margin) for b, c in pairs])
        assert counts[p <= 0.05].sum() / 3000 <= 0.05 + 0.012


@pytest.mark.parametrize("discordance", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("n", [50, 200, 800])
def test_tango_one_sided_coverage(n: int, discordance: float) -> None:
    draws, rng = 4000, np.random.default_rng(n)
    for difference in (0.0, discordance / 2):
        rates = [(discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance]
        tables_seen = rng.multinomial(n, rates, size=draws)
        pairs, counts = np.unique(tables_seen[:, :2], axis=0, return_counts=True)
        scores = np.array([tango_score(b, c, n, difference) for b, c in pairs.tolist()])
        covered = counts[scores >= -Z].sum() / draws
        assert covered >= 0.93


def test_exact_bound_inverts_the_exact_test() -> None:
    for after, before, n in [(0, 0, 20), (3, 1, 25), (1, 6, 12), (12, 0, 12)]:
        bound = exact_bound(after, before, n)
        assert exact_noninferiority_p(after, before, n, bound) <= 0.05 + 1e-9 or bound == 1.0
        if bound < 1:
            assert exact_noninferiority_p(after, before, n, bound - 2e-4) > 0.05
        assert paired_bound(after, before, n) == bound
    assert exact_bound(0, 0, 20) == pytest.approx(1 - 0.05 ** (1 / 20), abs=2e-4)
    assert paired_bound(3, 1, 40) == tango_bound(3, 1, 40)


def test_exceeding_is_exact_where_it_is_borderline() -> None:
    score = tango_p(40, 4, 400, 0.05, "above")
    assert exceedance_p(40, 4, 400, 0.05) > score
    assert exceedance_p(40, 4, 400, 0.05) < 0.05
    assert exceedance_p(200, 0, 400, 0.05) == tango_p(200, 0, 400, 0.05, "above")  # certain
    assert exceedance_p(4, 4, 400, 0.05) == tango_p(4, 4, 400, 0.05, "above")  # out of the question
    assert exceedance_p(5, 0, 20, 0.05) == exact_noninferiority_p(5, 0, 20, 0.05, "above")


@pytest.mark.parametrize(("margin", "before"), [(0.05, 0.0), (0.1, 0.05)])
def test_exceedance_keeps_a_corrected_level(margin: float, before: float) -> None:
    """Exact: at a twelfth of five percent, where Holm reads it over twelve cells."""
    n, level, error = 120, 0.05 / 12, 0.0
    for a in range(n + 1):
        for b in range(n + 1 - a) if before else [0]:
            ways = math.lgamma(n + 1) - math.lgamma(a + 1) - math.lgamma(b + 1)
            ways -= math.lgamma(n - a - b + 1)
            log = ways + a * math.log(margin + before) + (b * math.log(before) if b else 0)
            log += (n - a - b) * math.log(1 - margin - 2 * before)
            if log > -18 and exceedance_p(a, b, n, margin) < level:
                error += math.exp(log)
    assert error <= level


def test_equivalence_is_the_interval_inside_the_margins() -> None:
    for after, before, n, margin in [(2, 2, 200, 0.05), (5, 1, 100, 0.05), (9, 2, 300, 0.05)]:
        low, high = tango_interval(after, before, n, 0.9)
        assert (equivalence_p(after, before, n, margin) < 0.05) == (-margin < low and high < margin)
    assert equivalence_p(0, 0, 20, 0.05) > 0.05  # no change in few pairs proves nothing
    with pytest.raises(ValueError, match="positive"):
        equivalence_p(1, 1, 50, 0.0)
    with pytest.raises(ValueError, match="positive"):
        mean_equivalence_p([0.1, 0.2], -0.1)


def test_equivalence_keeps_its_level() -> None:
    """At the margin two models are called equivalent at most one time in twenty."""
    n, margin = 400, 0.05
    draws = np.random.default_rng(0).multinomial(n, [0.08, 0.03, 0.89], size=4000)
    pairs, counts = np.unique(draws[:, :2], axis=0, return_counts=True)
    p = np.array([equivalence_p(int(b), int(c), n, margin) for b, c in pairs])
    assert counts[p < 0.05].sum() / 4000 <= 0.05 + 0.012


def test_mcnemar_exact() -> None:
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(5, 5) == 1.0
    assert mcnemar_exact(0, 6) == pytest.approx(2 / 64)
    assert mcnemar_exact(1, 7) == mcnemar_exact(7, 1) == pytest.approx(2 * 9 / 256)
    assert mcnemar_exact(600, 900) < 1e-10
    with pytest.raises(ValueError):
        mcnemar_exact(-1, 2)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    with pytest.raises(ValueError):
        holm([1.2])


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_properties(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert [adjusted[i] for i in order] == sorted(adjusted)
    assert holm(p_values[::-1]) == pytest.approx(adjusted[::-1])


# --- What a sample can decide -------------------------------------------------------------------


def test_resolvable_change() -> None:
    assert resolvable_change(0, 0.1) == 1.0
    assert resolvable_change(52, 0.0) == pytest.approx(Z * Z / (52 + Z * Z))
    assert resolvable_change(10_000, 0.1) == pytest.approx(Z * math.sqrt(0.1 / 10_000), rel=0.02)
    assert resolvable_change(100, 0.1) > resolvable_change(200, 0.1)
    assert resolvable_change(100, 0.1) < resolvable_change(100, 0.3)


def test_pairs_needed_meets_resolvable_change() -> None:
    for margin in (0.01, 0.05, 0.2):
        n = pairs_needed(margin, 0.0)
        assert resolvable_change(n, 0.0) <= margin < resolvable_change(n - 1, 0.0)
    assert pairs_needed(0.2, 0.0) == 14  # below 30 the exact test decides: 0.8^14 < 5 %
    assert pairs_needed(0.05, 0.1) == pytest.approx(0.1 * (Z + 0.8416212) ** 2 / 0.05**2, rel=0.15)
    assert pairs_needed(0.05, 0.1, difference=0.02) > pairs_needed(0.05, 0.1)
    with pytest.raises(ValueError, match="never be decided"):
        pairs_needed(0.05, 0.1, difference=0.05)


@pytest.mark.parametrize(
    ("margin", "discordance", "difference"), [(0.05, 0.1, 0.0), (0.1, 0.2, 0.03), (0.05, 0.3, 0.15)]
)
def test_pairs_needed_gives_the_power(margin: float, discordance: float, difference: float) -> None:
    n = pairs_needed(margin, discordance, difference=difference)
    rates = [(discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance]
    draws = np.random.default_rng(0).multinomial(n, rates, size=4000)
    pairs, counts = np.unique(draws[:, :2], axis=0, return_counts=True)
    side = "below" if difference < margin else "above"
    p = np.array([tango_p(b, c, n, margin, side) for b, c in pairs.tolist()])
    assert counts[p < 0.05].sum() / 4000 == pytest.approx(0.8, abs=0.05)


# --- Student ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("probability", "df", "t"),
    [
        (0.975, 1, 12.7062),
        (0.975, 2, 4.3027),
        (0.95, 4, 2.1318),
        (0.975, 10, 2.2281),
        (0.995, 30, 2.7500),
        (0.9, 5, 1.4759),
        (0.999, 3, 10.2145),
        (0.975, 120, 1.9799),
        (0.5, 7, 0.0),
    ],
)
def test_student_table(probability: float, df: float, t: float) -> None:
    assert student_quantile(probability, df) == pytest.approx(t, abs=6e-5)
    assert student_quantile(1 - probability, df) == pytest.approx(-t, abs=6e-5)


@given(st.floats(0.001, 0.999), st.floats(1, 500))
@settings(max_examples=60, deadline=None)
def test_student_quantile_inverts(probability: float, df: float) -> None:
    assert student_cdf(student_quantile(probability, df), df) == pytest.approx(probability)


def test_student_approaches_the_normal() -> None:
    assert student_quantile(0.975, 1e7) == pytest.approx(1.959964, abs=1e-5)
    with pytest.raises(ValueError):
        student_cdf(1, 0)


def test_incomplete_beta_identities() -> None:
    for x in (0.0, 0.1, 0.5, 0.77, 1.0):
        assert incomplete_beta(1, 1, x) == pytest.approx(x)
        assert incomplete_beta(3, 1, x) == pytest.approx(x**3)
        assert incomplete_beta(2, 5, x) == pytest.approx(1 - incomplete_beta(5, 2, 1 - x))
    assert incomplete_beta(0.5, 0.5, 0.25) == pytest.approx(1 / 3)


def test_paired_t_interval() -> None:
    low, high = paired_t_interval([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
    assert paired_t_interval([1.0]) == (-math.inf, math.inf)
    assert paired_t_interval([2.0, 2.0]) == (2.0, 2.0)
    upper = paired_t_interval([1.0, 2.0, 3.0], 0.95, "upper")
    assert upper == pytest.approx((-math.inf, paired_t_interval([1.0, 2.0, 3.0], 0.9)[1]))
    lower = paired_t_interval([1.0, 2.0, 3.0], 0.95, "lower")
    assert lower == pytest.approx((4 - upper[1], math.inf))


def test_against_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for df in (1, 3.5, 40):
        for p in (0.01, 0.3, 0.975):
            assert student_quantile(p, df) == pytest.approx(stats.t.ppf(p, df))
    assert mcnemar_exact(3, 9) == pytest.approx(stats.binomtest(3, 12).pvalue)
    known = stats.binomtest(15, 148).proportion_ci(method="wilson")
    assert wilson(15, 148) == pytest.approx((known.low, known.high))


def test_against_statsmodels() -> None:
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    weights = pytest.importorskip("statsmodels.stats.weightstats")
    multiple = pytest.importorskip("statsmodels.stats.multitest")
    raters = pytest.importorskip("statsmodels.stats.inter_rater")
    assert wilson(7, 90) == pytest.approx(proportion.proportion_confint(7, 90, method="wilson"))
    square = tables.mcnemar([[30, 5], [14, 51]], exact=False, correction=False)
    assert tango_score(5, 14, 100, 0.0) ** 2 == pytest.approx(square.statistic)
    exact = tables.mcnemar([[30, 5], [14, 51]], exact=True)
    assert mcnemar_exact(5, 14) == pytest.approx(exact.pvalue)
    p = [0.001, 0.02, 0.03, 0.2, 0.04]
    assert holm(p) == pytest.approx(list(multiple.multipletests(p, method="holm")[1]))
    differences = np.array([0.01, -0.02, 0.03, 0.0, 0.02, -0.01])
    both = weights.ttost_paired(differences, np.zeros(6), -0.03, 0.03)[0]
    assert mean_equivalence_p(differences, 0.03) == pytest.approx(both)
    found = raters.cohens_kappa(np.array([[20, 5], [10, 15]]))
    ours = cohen_kappa(*labels([[20, 5], [10, 15]]))
    assert ours.kappa == pytest.approx(found.kappa)
    assert (ours.low, ours.high) == pytest.approx((found.kappa_low, found.kappa_upp))


def test_student_test_is_the_interval() -> None:
    sample = [0.1, 0.3, -0.05, 0.2]
    low, high = paired_t_interval(sample, 0.9)
    assert student_test(sample, high) == pytest.approx(0.05)
    assert student_test(sample, low, "above") == pytest.approx(0.05)
    assert student_test([0.1], 1.0) == 1.0
    assert student_test([0.1, 0.1], 0.2) == 0.0
    assert student_test([0.1, 0.1], 0.2, "above") == 1.0


# --- Agreement ----------------------------------------------------------------------------------


def labels(table: list[list[int]]) -> tuple[list[str], list[str]]:
    cells = [(i, j) for i, row in enumerate(table) for j, n in enumerate(row) for _ in range(n)]
    return [str(i) for i, _ in cells], [str(j) for _, j in cells]


def test_kappa_by_hand() -> None:
    a, b = labels([[20, 5], [10, 15]])
    result = cohen_kappa(a, b)
    assert (result.n, result.observed, result.kappa) == (50, 0.7, pytest.approx(0.4))
    assert result.low < 0.4 < result.high
    assert cohen_kappa(b, a).low == pytest.approx(result.low)


def test_kappa_interval_covers() -> None:
    rng, hits, repeats, n = np.random.default_rng(5), 0, 300, 200
    cells = [(0, 0), (0, 1), (1, 0), (1, 1)]
    for _ in range(repeats):
        drawn = [cells[i] for i in rng.choice(4, size=n, p=[0.4, 0.1, 0.1, 0.4])]
        result = cohen_kappa([a for a, _ in drawn], [b for _, b in drawn])
        hits += result.low <= 0.6 <= result.high
    assert 0.91 <= hits / repeats <= 0.985


def test_kappa_where_it_is_undefined_or_perfect() -> None:
    assert cohen_kappa([], []).kappa is None
    assert cohen_kappa(["x"] * 5, ["x"] * 5).kappa is None
    perfect = cohen_kappa(["x", "y"] * 5, ["x", "y"] * 5)
    assert perfect.kappa == 1.0 and perfect.low < 0.6 and perfect.high == 1.0
    with pytest.raises(ValueError):
        cohen_kappa([1], [])
