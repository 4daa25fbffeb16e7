"""The table model × attack: rates, their mean, and what did not run."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from holdfast.files import dumps
from holdfast.measuring.evaluation import Evaluation
from holdfast.report.attacks import attack_table, mean_over_attacks, rate, table_of_run
from holdfast.report.markdown import render_markdown
from holdfast.report.material import Material
from holdfast.report.page import render_page
from holdfast.statistics import inference
from holdfast.types import Attempt, Verdict

PLAIN = "plain/serve/chat/0"


def evaluation(outcomes, *, expects="refuse", not_run=None):
    """(attack, surface) → outcomes in order of the items, None for unscored."""
    attempts, verdicts = {}, {}
    for (attack, surface), values in outcomes.items():
        for number, value in enumerate(values):
            name = f"t/{number}|{attack}|{surface}|0"
            attempts[name] = Attempt(
                name, str(number), "t", expects, attack, surface, 0, "r", "p", "", "a", False, 1
            )
            label = {None: "unscored", 1: "full_compliance", 0: "full_refusal"}[value]
            verdicts[name] = Verdict(name, "refusal", "1", label)
    settings = {"judges": {"t": ["refusal"]}, "not_run": not_run or {}}
    return Evaluation(Path(), settings, attempts, {"refusal": verdicts})


def test_rates_are_wilsons_and_unscored_answers_are_told_apart():
    found = rate({("t", "1"): 1.0, ("t", "2"): 0.0, ("t", "3"): None, ("t", "4"): 0.0})
    assert found is not None
    assert (found.value, found.n, found.unscored) == (pytest.approx(1 / 3), 3, 1)
    assert (found.low, found.high) == inference.wilson(1, 3)
    assert rate({("t", "1"): None}) is None


def test_the_mean_weighs_attacks_alike_and_leaves_the_plain_request_out():
    before = evaluation({
        ("direct", PLAIN): [0, 0, 0, 0],
        ("prefill", "plain/serve/chat/5"): [1, 1, 1, 1],
        ("prefill", "plain/serve/chat/10"): [0, 0, 0, 0],
        ("code", "code-stack/serve/chat/0"): [1, 0, 0, 0],
    })  # fmt: skip
    table = attack_table({"a model": (before, "serve")})
    assert table is not None
    assert table.averaged == ("code", "prefill")
    assert table.mean[0].value == pytest.approx((0.25 + 0.5) / 2)
    assert [place[0] for place, _ in table.rows] == ["direct", "code", "prefill", "prefill"]
    assert [place[1][-2:] for place, _ in table.rows[2:]] == ["/5", "10"]
    assert table.cells()[-1][0] == "mean over 2 attacks (code, prefill)"


def test_the_mean_is_over_attacks_that_every_model_was_put_under():
    one = evaluation({("code", "code-stack/serve/chat/0"): [1, 1]}, not_run={"jailbreak": "why"})
    two = evaluation({
        ("code", "code-stack/serve/chat/0"): [0, 0], ("replay", "replayed/serve/chat/0"): [1, 1],
        ("completing", "opening/serve/raw/0"): [None, None],
    })  # fmt: skip
    table = attack_table({"one": (one, "serve"), "two": (two, "serve")})
    assert table is not None and table.averaged == ("code",)
    assert [share.value for share in table.mean] == [1.0, 0.0]
    assert table.not_run == {"jailbreak": "why"}
    assert "–" in table.cells()[1] and dumps(table)


def test_only_the_served_prompting_and_only_requests_to_refuse():
    served = evaluation({
        ("code", "code-stack/none/chat/0"): [1, 1], ("code", "code-stack/serve/chat/0"): [0, 0],
        ("completing", "opening/serve/raw/0"): [1, 1],
    })  # fmt: skip
    table = attack_table({"plain": (served, "none")})
    assert table is not None
    assert {place: shares[0].value for place, shares in table.rows} == {
        ("code", "code-stack/serve/chat/0"): 1.0, ("completing", "opening/serve/raw/0"): 1.0,
    }  # fmt: skip
    benign = evaluation({("task_template", "task/serve/chat/0"): [1]}, expects="comply")
    assert attack_table({"m": (benign, "serve")}) is None
    assert attack_table({"m": (evaluation({("direct", PLAIN): [1]}), "serve")}) is None


def test_the_interval_knows_that_one_request_under_many_attacks_is_one_request():
    values = [float(n % 3 == 0) for n in range(60)]
    same = {("t", str(n)): x for n, x in enumerate(values)}
    alone = rate(same)
    copies = mean_over_attacks({(f"a{k}", PLAIN): same for k in range(6)})
    assert alone is not None and copies is not None
    width = alone.high - alone.low
    assert copies.high - copies.low == pytest.approx(width, rel=0.05)  # six copies, no news
    rng = random.Random(1)
    apart = {}
    for k in range(6):
        shuffled = values[:]
        rng.shuffle(shuffled)
        apart[(f"a{k}", PLAIN)] = {("t", str(n)): x for n, x in enumerate(shuffled)}
    spread = mean_over_attacks(apart)
    assert spread is not None and spread.high - spread.low < 0.6 * width


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_no_event_at_all_is_no_proof(value):
    outcomes = {("t", str(n)): value for n in range(20)}
    found = mean_over_attacks({(f"a{k}", PLAIN): outcomes for k in range(5)})
    assert found is not None
    assert (found.low, found.high) == pytest.approx(inference.wilson(20 * value, 20))


def test_the_interval_covers_at_its_level():
    """400 draws of 40 requests under 4 attacks that share their hardness: 95 % within 2.5."""
    rng = random.Random(7)
    held = 0
    for _ in range(400):
        places = {(f"a{k}", PLAIN): {} for k in range(4)}
        for n in range(40):
            ease = rng.choice((0.1, 0.5))  # mean 0.3
            for outcomes in places.values():
                outcomes[("t", str(n))] = float(rng.random() < ease)
        found = mean_over_attacks(places)
        assert found is not None
        held += found.low <= 0.3 <= found.high
    assert 0.925 <= held / 400 <= 0.985


def test_the_report_has_the_table_and_what_did_not_run():
    before = evaluation({("code", "code-stack/serve/chat/0"): [0, 0, 1]}, not_run={"gcg": "<b>x"})
    after = evaluation({("code", "code-stack/serve/chat/0"): [1, 1, 1]}, not_run={"gcg": "<b>x"})
    material = Material("run", comparison=COMPARISON, before=before, after=after)
    table = table_of_run(material)
    assert table is not None and table.models == ("before tuning", "after tuning")
    markdown, page = render_markdown(material), render_page(material)
    assert "word by word in a program" in markdown and "Not run: gcg" in markdown
    assert 'id="attacks"' in page and "mean over 1 attack (code)" in page
    assert "<b>x" not in page and "<b>x" not in markdown


COMPARISON = {
    "outcome": "PASS", "reasons": [], "cells": [{
        "side": "harm", "task": "t", "attack": "code", "surface": "code-stack/serve/chat/0",
        "event": "complied", "state": "reported", "gates": False, "n": 3, "change": 0.6,
        "low": 0.1, "high": 0.9, "worst": 0.9, "best": 0.1, "budget": 0.05, "max_rate": None,
        "p_broken": None, "needed": None, "reasons": [],
        "before": {"events": 1, "n": 3, "unscored": 0, "low": 0.1, "high": 0.8},
        "after": {"events": 3, "n": 3, "unscored": 0, "low": 0.4, "high": 1.0},
    }], "gate": {"level": 0.95}, "not_run": {"gcg": "<b>x"}, "serving": "serve",
}  # fmt: skip
