"""Small versions of the simulations behind docs/statistics.md, with the bounds they must keep."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from conftest import script

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    return script("gate_simulation")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def shares(row: list[str]) -> list[float]:
    return [float(share) for cell in row[1:] for share in re.findall(r"([\d.]+) %", cell)]


def test_wilson_covers(simulation, rng):
    _, _, rows = simulation.wilson_coverage(rng, 1.0)
    assert min(min(shares(row)) for row in rows) > 90
    assert np.mean([s for row in rows for s in shares(row)]) == pytest.approx(95, abs=1)


def test_tango_covers(simulation, rng):
    _, _, rows = simulation.paired_coverage(rng, 0.1)
    assert min(min(shares(row)) for row in rows) > 92  # 52 pairs, all one way: 93 %


def test_the_exact_test_never_falls_short(simulation):
    for before in (0.0, 0.1, 0.3):
        assert simulation.exact_error(15, 0.2, before) <= 0.05


@pytest.mark.parametrize("cells", [3, 6])
def test_the_gate_keeps_its_level(simulation, rng, cells):
    """200 runs: three standard errors above 5 % is 9.6 %."""
    nothing, one, every, far = simulation.TRUTHS
    passed, failed = simulation.verdicts(rng, cells, 0.05, nothing, 100)
    assert passed > 0.85 and failed <= 0.03
    assert simulation.verdicts(rng, cells, 0.05, one, 200)[0] < 0.096
    assert simulation.verdicts(rng, cells, 0.05, every, 200)[1] < 0.096
    assert simulation.verdicts(rng, cells, 0.05, far, 50) == (0.0, 1.0)


def test_sequential_keeps_its_level_and_saves(simulation, rng):
    for discordance in (0.05, 0.2):
        edge = simulation.watched(simulation.paths(rng, 400, discordance, 0.05, 600), 0.05)
        assert edge.holds <= 0.05 and edge.broken <= 0.05
    still = simulation.watched(simulation.paths(rng, 400, 0.02, 0.0, 300), 0.05)
    assert still.holds > 0.98 and still.asked < 200
    damaged = simulation.watched(simulation.paths(rng, 400, 0.2, 0.15, 300), 0.05, tests=6)
    assert damaged.broken > 0.9 and damaged.asked < 250


def test_the_page_shows_these_tables(simulation):
    page = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
    shown = page.split(simulation.BEGIN)[1].split(simulation.END)[0]
    title, _, rows = simulation.wilson_coverage(np.random.default_rng(0), 1.0)
    assert simulation.markdown(title, _, rows) in shown
    assert shown.count("**") == 2 * 9
