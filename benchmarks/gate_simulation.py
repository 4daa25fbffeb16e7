"""What the gate's numbers are worth: coverage of its intervals, errors of its verdicts, savings.

    python benchmarks/gate_simulation.py                            # tables on standard output
    python benchmarks/gate_simulation.py --into docs/statistics.md  # and into the page
    python benchmarks/gate_simulation.py --quick                    # a tenth of the runs

Seeded; needs no model. Coverage of discrete outcomes is summed exactly where the outcomes can be
listed, and drawn where they cannot. The gate is simulated whole: paired outcomes are drawn, and
`holdfast.measuring.gate.decide` gives the verdict.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from holdfast.files import write_text
from holdfast.measuring.gate import Cell, decide, tests_of
from holdfast.recipe import GateSettings
from holdfast.statistics import inference, sequential
from holdfast.statistics.seeds import seed_interval

BEGIN, END = "<!-- gate_simulation: begin -->", "<!-- gate_simulation: end -->"
LEVEL = 0.95
LOOK = 20
CHANGES = (-1.0, 0.0, 1.0)
Table = tuple[str, Sequence[str], list[list[str]]]


def main() -> None:
    """Print every table; with `--into`, also put them into a page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--into", type=Path, help="page whose marked part is replaced")
    parser.add_argument("--quick", action="store_true", help="a tenth of the runs")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    scale = 0.1 if asked.quick else 1.0
    tables = list(all_tables(asked.seed, scale))
    text = "\n\n".join(markdown(*table) for table in tables)
    print(text)
    if asked.into:
        page = asked.into.read_text(encoding="utf-8")
        head, tail = page.split(BEGIN)[0], page.split(END)[1]
        write_text(asked.into, f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}")


def all_tables(seed: int, scale: float) -> Iterator[Table]:
    """Every table, each from a generator of its own, so that one can change without the others."""
    makers: list[Callable[[np.random.Generator, float], Table]] = [
        wilson_coverage, paired_coverage, exact_coverage, seed_coverage, sequence_coverage,
        gate_errors, sequential_errors, savings, gate_savings,
    ]  # fmt: skip
    for number, make in enumerate(makers):
        yield make(np.random.default_rng([seed, number]), scale)


def markdown(title: str, names: Sequence[str], rows: list[list[str]]) -> str:
    """One table with its title."""
    lines = [f"**{title}**", "", f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


# --- intervals ------------------------------------------------------------------------------------


def wilson_coverage(rng: np.random.Generator, scale: float) -> Table:
    """Exact: the sum of binomial probabilities whose interval holds the rate."""
    del rng, scale
    rows = []
    for n in (50, 100, 250, 400):
        row = [str(n)]
        for rate in (0.01, 0.05, 0.1, 0.3, 0.5):
            inside = [
                low <= rate <= high for low, high in (inference.wilson(k, n) for k in range(n + 1))
            ]
            row.append(percent(float(binomial(n, rate)[inside].sum())))
        rows.append(row)
    title = "Wilson, 95 % two-sided: coverage (exact), by items and true rate"
    return title, ["items", "1 %", "5 %", "10 %", "30 %", "50 %"], rows


def paired_coverage(rng: np.random.Generator, scale: float) -> Table:
    """How often Tango's one-sided upper bound lies above the true change."""
    runs = round(20_000 * scale)
    rows = []
    for n in (52, 100, 250, 400, 1000):
        row = [str(n)]
        for discordance in (0.02, 0.05, 0.1, 0.3):
            for change in (0.0, discordance):
                counts = draw(rng, n, discordance, change, runs)
                row.append(percent(covered(counts, n, change)))
        rows.append(row)
    names = [
        f"{kind}, {d}" for d in ("2 %", "5 %", "10 %", "30 %") for kind in ("no change", "one-way")
    ]
    title = "Tango, 95 % one-sided: coverage of the upper bound, by pairs and discordance"
    return title, ["pairs", *names], rows


def covered(counts: NDArray[np.int64], n: int, change: float) -> float:
    """Share of (runs, 3) draws whose one-sided bound is at or above the change."""
    pairs, often = np.unique(counts[:, [2, 0]], axis=0, return_counts=True)
    z = inference.normal_quantile(LEVEL)
    inside = [inference.tango_score(int(a), int(b), n, change) >= -z for a, b in pairs]
    return float(often[inside].sum() / often.sum())


def exact_coverage(rng: np.random.Generator, scale: float) -> Table:
    """Exact: the sum of trinomial probabilities of outcomes whose p-value is above 5 %."""
    del rng, scale
    rows = []
    for n in (10, 20, 29):
        row = [str(n)]
        for margin in (0.05, 0.2):
            for before in (0.0, 0.1, 0.3):
                row.append(percent(1 - exact_error(n, margin, before)))
        rows.append(row)
    names = [f"change {m}, other way {q}" for m in ("5", "20") for q in ("0 %", "10 %", "30 %")]
    return (
        "Exact test, 95 % one-sided: coverage (exact), by pairs, at changes of 5 and 20 points",
        ["pairs", *names],
        rows,
    )


def exact_error(n: int, margin: float, before: float) -> float:
    """Chance that the exact test gives up a true margin."""
    chances = (margin + before, before, 1 - margin - 2 * before)
    error = 0.0
    for a in range(n + 1):
        for b in range(n + 1 - a):
            if before == 0 and b:
                continue
            ways = math.comb(n, a) * math.comb(n - a, b)
            chance = ways * chances[0] ** a * chances[1] ** b * chances[2] ** (n - a - b)
            if chance > 1e-9 and inference.exact_noninferiority_p(a, b, n, margin) <= 1 - LEVEL:
                error += chance
    return error


def seed_coverage(rng: np.random.Generator, scale: float) -> Table:
    """Student's t over seeds, and what a bootstrap over the same seeds would cover."""
    runs = round(2000 * scale)
    shapes: dict[str, Callable[[int], NDArray[np.float64]]] = {
        "normal": lambda n: rng.normal(0, 1, size=(runs, n)),
        "uniform": lambda n: rng.uniform(-1, 1, size=(runs, n)),
        "skewed (exponential)": lambda n: rng.exponential(1, size=(runs, n)) - 1,
    }
    rows = []
    for name, sample in shapes.items():
        row = [name]
        for seeds in (3, 5, 10):
            drawn = sample(seeds)
            ends = np.array([seed_interval(d)[1:] for d in drawn])
            row.append(percent(float(((ends[:, 0] <= 0) & (ends[:, 1] >= 0)).mean())))
        drawn = sample(3)
        means = drawn[:, rng.integers(0, 3, size=(400, 3))].mean(axis=2)  # (runs, 400)
        low, high = np.quantile(means, [0.025, 0.975], axis=1)
        row.append(percent(float(((low <= 0) & (high >= 0)).mean())))
        rows.append(row)
    title = "t interval over training seeds, 95 % two-sided: coverage, by shape of the differences"
    return title, ["", "3 seeds", "5 seeds", "10 seeds", "bootstrap over 3 seeds"], rows


def sequence_coverage(rng: np.random.Generator, scale: float) -> Table:
    """Whether the true change ever leaves the bound, looking after every pair up to 1,000."""
    runs = round(2000 * scale)
    rows = []
    for discordance in (0.02, 0.1, 0.3):
        row = [percent(discordance, 0)]
        for change in (0.0, discordance / 2):
            counts = paths(rng, 1000, discordance, change, runs)
            wealth = sequential.log_wealth(CHANGES, counts, change, "below")
            row.append(percent(float((wealth.max(axis=1) < -math.log(1 - LEVEL)).mean())))
            peeks = counts[: runs // 4, 59::LOOK]
            row.append(percent(1 - fooled_by_peeking(peeks, change)))
        rows.append(row)
    names = ["sequence", "Tango at every look"]
    title = (
        "Confidence sequence, 95 % one-sided: share of runs in which the bound stays above the "
        "true change at every look up to 1,000 pairs"
    )
    return title, ["discordance", *(f"{n}, no change" for n in names),
                   *(f"{n}, half one-way" for n in names)], rows  # fmt: skip


def fooled_by_peeking(counts: NDArray[np.int64], change: float) -> float:
    """Share of runs in which a fixed-size bound, read at every look, is wrong at least once."""
    z = inference.normal_quantile(LEVEL)
    wrong = [
        any(inference.tango_score(int(c[2]), int(c[0]), int(c.sum()), change) < -z for c in run)
        for run in counts
    ]
    return float(np.mean(wrong))


# --- the whole gate -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Truth:
    """True changes of the gating cells, as shares of their budget."""

    name: str
    first: float
    rest: float


TRUTHS = (
    Truth("no cell changes", 0.0, 0.0),
    Truth("one cell at its budget", 1.0, 0.0),
    Truth("every cell at its budget", 1.0, 1.0),
    Truth("one cell at three times its budget", 3.0, 0.0),
)
"""The second is the worst case of PASS (wrong there), the third the worst case of FAIL."""
ITEMS = 400
BUDGET = 0.05


def gate_errors(rng: np.random.Generator, scale: float) -> Table:
    """How often `decide` says PASS and FAIL of cells of 400 pairs, budget five points."""
    runs = round(1000 * scale)
    rows = []
    for cells in (3, 6, 12):
        for discordance in (0.05, 0.1, 0.2):
            row = [str(cells), percent(discordance, 0)]
            for truth in TRUTHS:
                passed, failed = verdicts(rng, cells, discordance, truth, runs)
                row.append(f"{percent(passed)} / {percent(failed)}")
            rows.append(row)
    title = (
        f"The gate: PASS / FAIL, {ITEMS} pairs a cell, budget 5 points, level 95 % ({runs:,} runs "
        "each; the rest is INCONCLUSIVE)"
    )
    return title, ["gating cells", "discordance", *(t.name for t in TRUTHS)], rows


def verdicts(
    rng: np.random.Generator, cells: int, discordance: float, truth: Truth, runs: int
) -> tuple[float, float]:
    """Shares of PASS and FAIL. Discordance is raised where a change needs more of it."""
    settings = five_points()
    changes = [BUDGET * truth.first, *[BUDGET * truth.rest] * (cells - 1)]
    counts = [draw(rng, ITEMS, discordance, change, runs) for change in changes]
    outcomes = [
        decide([cell(i, c[run]) for i, c in enumerate(counts)], settings).outcome
        for run in range(runs)
    ]
    return outcomes.count("PASS") / runs, outcomes.count("FAIL") / runs


def five_points() -> GateSettings:
    """The same budget on every side, so that cells differ in nothing but luck."""
    side = {"max_change": 100 * BUDGET}
    return GateSettings.model_validate({"harm": side, "over_refusal": side, "capability": side})


def cell(number: int, counts: NDArray[np.int64]) -> Cell:
    """A gating cell with so many pairs that fell, stayed and rose; sides take turns."""
    side = ("harm", "over_refusal", "capability")[number % 3]
    fell, stayed, rose = (int(c) for c in counts)
    before = (1.0,) * fell + (0.0,) * (stayed + rose)
    after = (0.0,) * (fell + stayed) + (1.0,) * rose
    return Cell(side, str(number), "direct", "plain/serve/chat/0", True, "", before, after)


# --- sequential evaluation ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stopped:
    """What sequential evaluation does over many runs of one cell."""

    holds: float
    broken: float
    asked: float
    """Mean pairs asked."""


def watched(counts: NDArray[np.int64], margin: float, tests: int = 1) -> Stopped:
    """Stop paths (runs, n, 3) as the watch does: every 20 pairs, and at the end."""
    ends = looks(counts.shape[1])
    seen = counts[:, ends - 1]
    enough = -math.log(1 - LEVEL)
    holds = sequential.log_wealth(CHANGES, seen, margin, "below") >= enough
    broken = sequential.log_wealth(CHANGES, seen, margin, "above") >= enough + math.log(tests)
    done = holds | broken  # (runs, looks)
    stop = np.where(done.any(axis=1), done.argmax(axis=1), len(ends) - 1)
    at = (np.arange(len(stop)), stop)
    return Stopped(float(holds[at].mean()), float(broken[at].mean()), float(ends[stop].mean()))


def looks(n: int) -> NDArray[np.int64]:
    """How many pairs have been seen at each look."""
    return np.unique(np.append(np.arange(LOOK, n, LOOK), n))


def sequential_errors(rng: np.random.Generator, scale: float) -> Table:
    """At the budget's edge both verdicts of a cell are wrong: how often each is given."""
    runs = round(4000 * scale)
    rows = []
    for discordance in (0.05, 0.1, 0.2, 0.4):
        row = [percent(discordance, 0)]
        for n in (400, 2000):
            found = watched(paths(rng, n, discordance, BUDGET, runs), BUDGET)
            row += [percent(found.holds), percent(found.broken)]
        rows.append(row)
    names = [f"{what}, {n:,} pairs at most" for n in (400, 2000) for what in ("holds", "broken")]
    title = "Sequential evaluation of one cell exactly at its budget: wrong decisions (at most 5 %)"
    return title, ["discordance", *names], rows


def savings(rng: np.random.Generator, scale: float) -> Table:
    """Pairs asked, against the fixed number that decides as often at the same error rate."""
    runs, most = round(2000 * scale), 400
    rows = []
    for change in (-0.02, 0.0, 0.1, 0.15, 0.3):
        for discordance in (0.0, 0.02, 0.1, 0.2):
            if discordance < abs(change) and discordance < 0.1:
                continue
            lively = max(discordance, abs(change))
            found = watched(paths(rng, most, lively, change, runs), BUDGET)
            power = found.holds if change < BUDGET else found.broken
            fixed = fixed_power(rng, most, lively, change, runs)
            same = fixed_size(lively, change, power)
            rows.append(
                [
                    f"{100 * change:+.0f}" if change else "0",
                    percent(lively, 0),
                    percent(power),
                    percent(fixed),
                    f"{found.asked:.0f}",
                    percent(1 - found.asked / most, 0),
                    "–" if same is None else f"{same:,}",
                ]
            )
    names = [
        "true change, points", "discordance", "decided in time", f"fixed {most} decides",
        "pairs asked (mean)", f"saved of {most}", "fixed pairs that decide as often",
    ]  # fmt: skip
    title = f"Sequential evaluation of one cell, {most} pairs at most, budget 5 points, level 95 %"
    return title, names, dedupe(rows)


def dedupe(rows: list[list[str]]) -> list[list[str]]:
    """Rows of one change and discordance once."""
    return list({tuple(row[:2]): row for row in rows}.values())


def fixed_power(
    rng: np.random.Generator, n: int, discordance: float, change: float, runs: int
) -> float:
    """How often Tango's test decides n pairs for the right side."""
    side: inference.Alternative = "below" if change < BUDGET else "above"
    pairs, often = np.unique(
        draw(rng, n, discordance, change, runs)[:, [2, 0]], axis=0, return_counts=True
    )
    right = [inference.tango_p(int(a), int(b), n, BUDGET, side) < 1 - LEVEL for a, b in pairs]
    return float(often[right].sum() / often.sum())


def fixed_size(discordance: float, change: float, power: float) -> int | None:
    """Pairs with which the fixed-size test has a power; None beyond what can be told apart."""
    if not 0.02 < power < 0.9995:
        power = min(max(power, 0.02), 0.9995)
    return inference.pairs_needed(BUDGET, discordance, power, LEVEL, difference=change)


def gate_savings(rng: np.random.Generator, scale: float) -> Table:
    """Six cells at once, as the gate watches them: FAIL corrected over six tests."""
    runs, most, cells = round(1000 * scale), 400, 6
    tests = tests_of([cell(i, np.array([0, 1, 0])) for i in range(cells)], five_points())
    rows = []
    for name, changes in {
        "nothing changes, 2 % discordance": [(0.02, 0.0)] * cells,
        "nothing changes, 10 % discordance": [(0.1, 0.0)] * cells,
        "one cell +15 points, the rest unchanged at 2 %": [(0.15, 0.15), *[(0.02, 0.0)] * 5],
        "every cell +15 points": [(0.15, 0.15)] * cells,
        "every cell at its budget, 10 % discordance": [(0.1, 0.05)] * cells,
    }.items():
        found = [watched(paths(rng, most, d, c, runs), BUDGET, tests) for d, c in changes]
        asked = sum(f.asked for f in found)
        holds = math.prod(f.holds for f in found)
        broken = 1 - math.prod(1 - f.broken for f in found)
        rows.append(
            [name, f"{asked:,.0f} of {cells * most:,}", percent(1 - asked / cells / most, 0),
             percent(holds), percent(broken)]
        )  # fmt: skip
    title = "Sequential evaluation of six gating cells of 400 pairs, budget 5 points"
    return title, ["truth", "asked (mean)", "saved", "PASS", "FAIL"], rows


# --- draws ----------------------------------------------------------------------------------------


def shares_of(discordance: float, change: float) -> tuple[float, float, float]:
    """Chances of a pair to fall, stay and rise; discordance is at least the change."""
    discordance = max(discordance, abs(change))
    return (discordance - change) / 2, 1 - discordance, (discordance + change) / 2


def draw(
    rng: np.random.Generator, n: int, discordance: float, change: float, runs: int
) -> NDArray[np.int64]:
    """(runs, 3) counts of n pairs that fell, stayed and rose."""
    return rng.multinomial(n, shares_of(discordance, change), size=runs)


def paths(
    rng: np.random.Generator, n: int, discordance: float, change: float, runs: int
) -> NDArray[np.int64]:
    """(runs, n, 3) running counts, pair after pair."""
    drawn = rng.choice(3, p=shares_of(discordance, change), size=(runs, n))
    return (drawn[:, :, None] == np.arange(3)).cumsum(axis=1, dtype=np.int64)


def binomial(n: int, rate: float) -> NDArray[np.float64]:
    """(n + 1,) probabilities of 0 to n events."""
    return np.array([math.comb(n, k) * rate**k * (1 - rate) ** (n - k) for k in range(n + 1)])


def percent(share: float, digits: int = 1) -> str:
    """0.0512 → `5.1 %`."""
    return f"{100 * share:.{digits}f} %"


if __name__ == "__main__":
    main()
