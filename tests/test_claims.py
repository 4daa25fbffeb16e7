"""The shelf of claims: complete, as published, and each arm differing in what the claim says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from holdfast.claims import CLAIMS, MARKS, PAPERS, Claim, Reading, Trend, readings, side
from holdfast.job.setup import set_up
from holdfast.lab.datasets import dataset
from holdfast.reproduce.orders import EXPECTS, readings_of
from holdfast.reproduce.recipes import Recipes
from holdfast.stages.reform import form_of
from holdfast.sweep.grid import read_promptings
from holdfast.tasks import TaskContext, task

PUBLISHED = [f"R{number:02d}" for number in range(1, 21)]
CONTROLS = ["R-null-A", "R-null-B", "R-null-C"]

SIGNS = {
    "R01": ["higher"], "R02": ["higher"], "R03": ["lower"], "R04": ["higher", "same"],
    "R05": ["lower"], "R06": ["lower"], "R07": ["higher"], "R08": ["lower"], "R09": ["lower"],
    "R10": ["falling"], "R11": ["higher"], "R12": ["same"], "R13": ["lower"],
    "R14": ["lower", "lower"], "R15": ["lower", "lower"], "R16": ["lower"], "R17": ["higher"],
    "R18": ["higher", "lower"], "R19": ["higher"], "R20": ["lower", "lower", "same"],
    "R-null-A": ["different"], "R-null-B": ["same"], "R-null-C": ["lower"],
}  # fmt: skip
FIGURES = {
    "R01": ["2.75", "11.00"], "R02": ["0", "18.08"], "R03": ["18.08", "1.08"],
    "R04": ["20.32", "33.39"], "R14": ["95.0", "25.0", "90.5", "51.5", "2.9"],
    "R15": ["88.0", "28.0", "25.0", "5.0"], "R16": ["70.6", "8.8", "93", "6"],
    "R17": ["20 %", "50–55 %"], "R18": ["18.8", "64.0", "18.0"], "R19": ["0 %", "19 %"],
    "R20": ["< 1 %", "5–84 %"],
}  # fmt: skip
DIRECTIONS = ["R05", "R06", "R07", "R08"]
"""Claims whose source gives no number."""

TUNING, SERVING = "tuned", "serve"
DIFFERENCES: Mapping[str, list[set[str]]] = {
    "R01": [{TUNING}],
    "R02": [{TUNING, "prompting.train.system"}],
    "R03": [{"prompting.train.system"}],
    "R04": [{TUNING}, {SERVING}],
    "R05": [{SERVING, "prompting.train.system"}],
    "R06": [{"mitigations", "safety.ratio"}],
    "R07": [{"attacks"}],
    "R08": [{SERVING}],
    "R09": [{"mitigations", "safety.ratio"}],
    "R10": [{"mitigations", "safety.ratio"}],
    "R11": [{"safety.ratio"}],
    "R12": [{"mitigations", "safety.ratio"}],
    "R13": [{"safety.form"}],
    "R14": [{"triples.prefix"}] * 2,
    "R15": [{"mitigations"}] * 2,
    "R16": [{"mitigations", "triples.prefix"}],
    "R17": [{"mitigations", "triples.prefix"}],
    "R18": [{"mitigations", "triples.prefix"}, {"mitigations", "borderline.share"}],
    "R19": [{"data", "attacks"}],
    "R20": [{"mitigations"}] * 3,
    "R-null-A": [{"data", "seed"}],
    "R-null-B": [{"safety.source"}],
    "R-null-C": [{"mitigations", "borderline.ratio", "borderline.source"}],
}
"""What may differ between the readings of each part: nothing else does."""

ASKED = {"evaluate", "run"}
"""Blocks that say what is asked and where, no part of an arm."""


def made(name: str) -> Claim:
    return CLAIMS.get(name)()


def test_the_shelf_is_complete():
    assert CLAIMS.names() == sorted([*PUBLISHED, *CONTROLS])
    assert all(CLAIMS.summary(name).endswith(".") for name in CLAIMS)


@pytest.mark.parametrize("name", [*PUBLISHED, *CONTROLS])
def test_signs_and_figures_are_the_published_ones(name):
    claim = made(name)
    assert [part.expected for part in claim.parts] == SIGNS[name]
    assert claim.paper in PAPERS and set(claim.marks) <= set(MARKS)
    assert all(number in claim.figure for number in FIGURES.get(name, []))
    if name in CONTROLS:
        assert claim.paper == "control" and claim.passes and not claim.figure
    else:
        assert claim.paper != "control" and not claim.passes and claim.marks
        assert bool(claim.figure) != (name in DIRECTIONS)
        assert claim.deviations


@pytest.mark.parametrize("name", [*PUBLISHED, *CONTROLS])
def test_arms_differ_in_what_is_claimed_and_in_nothing_else(name):
    recipes = Recipes()
    for part, allowed in zip(made(name).parts, DIFFERENCES[name], strict=True):
        told = [flat(reading, recipes) for reading in readings(part)]
        keys = {key for one in told for key in one}
        differing = {key for key in keys if len({repr(one.get(key)) for one in told}) > 1}
        assert shortened(differing, allowed) == allowed


def flat(reading: Reading, recipes: Recipes) -> dict[str, Any]:
    """A reading and its arm's recipe as dotted settings."""
    found: dict[str, Any] = {
        TUNING: reading.arm.tuned,
        SERVING: reading.serve,
        "attacks": reading.attacks,
    }
    recipe = recipes.recipe(reading.arm, seed=0).model_dump()
    for block, value in recipe.items():
        if block not in ASKED:
            _flatten(block, value, found)
    return found


def _flatten(key: str, value: Any, found: dict[str, Any]) -> None:
    if isinstance(value, dict) and value:
        for inner, one in value.items():
            _flatten(f"{key}.{inner}", one, found)
    else:
        found[key] = value


def shortened(keys: set[str], allowed: set[str]) -> set[str]:
    """A preset changes settings below its own name, and a dose takes its block's default back."""
    blocks = {name.rpartition(".")[0] for name in allowed if name.endswith((".ratio", ".share"))}
    default = {f"{block}.{way}" for block in blocks for way in ("share", "at_least")} - allowed
    return {
        next((a for a in allowed if key == a or key.startswith(f"{a}.")), key)
        for key in keys - default
    }


def test_every_reading_can_be_asked():
    recipes = Recipes()
    asked = {}
    for reading in (r for name in CLAIMS for r in readings_of(made(name))):
        name = recipes.name(reading.arm, seed=0)
        if name not in asked:
            asked[name] = set_up(recipes.recipe(reading.arm, seed=0)).asked
        assert set(reading.attacks) <= set(asked[name].attacks)
        assert set(reading.tasks) <= set(asked[name].tasks)
        assert EXPECTS[reading.rate] in {task(one).expects for one in asked[name].tasks}
        assert reading.serve is None or len(read_promptings(reading.serve)) == 1


@pytest.mark.parametrize("name", PUBLISHED)
def test_lost_and_kept_refusals_need_a_model_that_refuses_first(name):
    claim = made(name)
    about_harm = any(r.rate != "capability" for part in claim.parts for r in readings(part))
    first = [need for need in claim.needs if need.reading.rate == "refused"]
    assert bool(first) == about_harm
    assert all(need.at_least == 0.6 and not need.reading.arm.tuned for need in first)


def test_the_dose_rises():
    (part,) = made("R10").parts
    assert isinstance(part, Trend)
    doses = [Recipes().recipe(one.arm, seed=0).safety.ratio or 0 for one in part.readings[1:]]
    assert doses == sorted(doses) == [0.005, 0.025, 0.1]
    assert part.readings[0].arm.settings == {"tuning.epochs": 3}


def test_the_control_of_seeds_shares_no_seed():
    (part,) = made("R-null-A").parts
    ours, theirs = (one.arm for both in (part.a, part.b) for one in side(both))
    seeds = [Recipes().recipe(arm, seed).seed for arm in (ours, theirs) for seed in range(8)]
    assert len(set(seeds)) == 16


def test_permuted_refusals_are_the_same_refusals_of_the_same_requests():
    own, permuted = dataset("safety", seed=3), dataset("safety-permuted", seed=3)
    for turn in (0, 1):
        told = [
            Counter(row["messages"][turn]["content"] for row in rows) for rows in (own, permuted)
        ]
        assert told[0] == told[1]
    pairs = list(zip(own, permuted, strict=True))
    assert all(a["messages"][0] == b["messages"][0] for a, b in pairs)
    assert sum(a["messages"][1] != b["messages"][1] for a, b in pairs) > len(own) / 2
    named = [row for row in permuted if "help you" in row["messages"][1]["content"]]
    assert sum(row["category"] in row["messages"][1]["content"] for row in named) < len(named) / 4


def test_homework_is_half_how_to_and_half_sums():
    told = Counter(row["id"].split("-")[0] for row in dataset("homework", n=60))
    assert told == {"howto": 30, "two": 30}


def test_commands_are_half_of_the_forbidden_items():
    commands = task("lab-forbidden-instructions").items(TaskContext())
    everything = task("lab-forbidden").items(TaskContext())
    assert 0.4 < len(commands) / len(everything) < 0.6
    assert {form_of(item.request) for item in commands} == {"instruction"}
    assert {item.task for item in commands} == {"lab-forbidden-instructions"}
