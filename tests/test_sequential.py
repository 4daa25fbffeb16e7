"""Sequential evaluation: e-values that hold at every look, and an evaluation that stops early."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.attacks import AttackContext, attack
from holdfast.engines import Decoding
from holdfast.engines.scripted import ScriptedEngine
from holdfast.errors import IncomparableError
from holdfast.files import read_jsonl, write_jsonl
from holdfast.measuring.evaluation import Evaluation
from holdfast.measuring.gate import reach
from holdfast.recipe import GateSettings
from holdfast.rendering.prompting import Prompting
from holdfast.stages.compare import compare
from holdfast.stages.evaluate import evaluate
from holdfast.stages.judge import judge_folder
from holdfast.stages.planning import Served, make_plan
from holdfast.stages.watch import Against, GateWatch
from holdfast.statistics import inference, sequential
from holdfast.statistics.sequential import confidence_sequence, e_p, log_wealth, pairs_needed
from holdfast.types import Item, Message
from scripted import YES, good, items

changes = st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=80)


# --- e-values -------------------------------------------------------------------------------------


@pytest.mark.parametrize("alternative", ["below", "above"])
@pytest.mark.parametrize("margin", [-0.3, 0.0, 0.05, 0.4])
def test_nobody_gains_while_the_hypothesis_is_true(alternative: str, margin: float) -> None:
    """Brute force: over all outcomes of five pairs the expected e-value is at most 1."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        shares = rng.dirichlet(np.ones(3))
        mean = shares[2] - shares[0]
        if (mean >= margin) != (alternative == "below"):
            continue
        expected = 0.0
        for down in range(6):
            for up in range(6 - down):
                counts = [down, 5 - down - up, up]
                ways = math.factorial(5) / math.prod(math.factorial(c) for c in counts)
                chance = ways * float(np.prod(shares**counts))
                expected += chance * math.exp(log_wealth([-1, 0, 1], counts, margin, alternative))
        assert expected <= 1 + 1e-9


@given(changes, st.floats(-0.9, 0.9), st.sampled_from([0.8, 0.9, 0.95]))
@settings(max_examples=60, deadline=None)
def test_the_sequence_inverts_the_e_value(d: list[float], margin: float, level: float) -> None:
    low, high = confidence_sequence(d, level)
    assert -1 <= low <= np.mean(d) <= high <= 1
    assert confidence_sequence([-x for x in d], level) == pytest.approx((-high, -low), abs=1e-9)
    if abs(high - margin) > 1e-6:
        assert (e_p(d, margin) <= (1 - level) / 2) == (high < margin)
    if abs(low - margin) > 1e-6:
        assert (e_p(d, margin, "above") <= (1 - level) / 2) == (low > margin)


@given(changes, st.floats(0.01, 0.5))
@settings(max_examples=40, deadline=None)
def test_order_does_not_matter_and_worse_never_helps(d: list[float], margin: float) -> None:
    assert e_p(d[::-1], margin) == pytest.approx(e_p(d, margin))
    worse = [1.0, *d[1:]]
    assert e_p(worse, margin) >= e_p(d, margin) - 1e-12


def test_the_sequence_is_wider_than_tangos_interval_and_shrinks() -> None:
    for n in (50, 200, 1000):
        d = [1.0] * (n // 20) + [-1.0] * (n // 20) + [0.0] * (n - 2 * (n // 20))
        low, high = confidence_sequence(d, 0.9)
        tango = inference.tango_interval(n // 20, n // 20, n, 0.9)
        assert low < tango[0] and tango[1] < high < 2.5 * tango[1]


def test_nothing_seen_says_nothing() -> None:
    assert confidence_sequence([], 0.9) == (-1.0, 1.0)
    assert e_p([], 0.05) == 1.0
    assert e_p([1.0, 1.0], 1.0) == 1.0  # no change is above 1
    with pytest.raises(ValueError, match="expected 0"):
        e_p([-1.0], 0.5, lower=0.0)


def test_pairs_needed_meets_resolvable_change() -> None:
    n = pairs_needed(0.05, 0.0)
    assert n is not None and n > inference.pairs_needed(0.05, 0.0)
    found = sequential.resolvable_change
    assert found(n, 0.0) <= 0.05 < found(n - 1, 0.0)
    assert pairs_needed(0.05, 0.1, difference=0.05) is None
    assert pairs_needed(0.05, 0.1, difference=0.049, most=1000) is None
    assert pairs_needed(0.05, 0.3, difference=0.3) < 50
    assert reach("harm", "t", "plain", n, GateSettings(), asked_in_rounds=True).reachable
    assert not reach("harm", "t", "plain", n - 1, GateSettings(), asked_in_rounds=True).reachable


def test_looking_after_every_pair_keeps_the_level() -> None:
    """At the margin, e-values are fooled at most one time in twenty; a repeated test far more."""
    rng, runs, most, margin = np.random.default_rng(0), 400, 400, 0.05
    draws = rng.choice([-1, 0, 1], p=[0.05, 0.85, 0.1], size=(runs, most))
    counts = np.stack([(draws == v).cumsum(axis=1) for v in (-1, 0, 1)], axis=-1)
    wealth = log_wealth([-1, 0, 1], counts, margin, "below")  # (runs, most)
    assert (wealth.max(axis=1) >= math.log(20)).mean() <= 0.05 + 0.02
    looks = counts[:, 59::20]
    peeked = [
        any(inference.tango_p(int(c[2]), int(c[0]), int(c.sum()), margin) < 0.05 for c in run)
        for run in looks[:150]
    ]
    assert np.mean(peeked) > 0.1


# --- an evaluation that stops ---------------------------------------------------------------------

JUDGES = {"bad": ("refusal",), "fine": ("refusal",), "sums": ("match",)}
DECODING = Decoding(max_new_tokens=32)


def half_bad(prompt):
    text = prompt.messages[-1].content
    return YES if "bad" in text and int(text.split()[-1].rstrip("?")) % 2 else good(prompt)


def evaluated(folder, answer, against=None, engine=None, gate=None):
    engine = engine or ScriptedEngine(answer)
    plan = make_plan(
        engine, items(300), attacks={"direct": attack("direct")},
        promptings={"serve": Served(Prompting())}, context=AttackContext(seed=5),
        decoding=DECODING, batch=16, look=20 if against else None,
    )  # fmt: skip
    recorded = {"judges": JUDGES, "attacks": {}, "date": "d"}
    watch = None
    if against:
        held = Against(against, gate or GateSettings())
        recorded["sequential"] = held.settings(5)
        watch = GateWatch(held, JUDGES)
    evaluate(engine, plan, folder, recorded, DECODING, watch=watch)
    judge_folder(folder, JUDGES)
    return Evaluation.read(folder)


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    return evaluated(tmp_path_factory.mktemp("before"), good)


def test_clear_cases_stop_early_with_the_verdict_of_all_items(tmp_path, before):
    same = evaluated(tmp_path / "same", good, before)
    held = compare(before, same, GateSettings())
    assert held["outcome"] == "PASS"
    assert held["sequential"]["planned"] == 900
    assert held["sequential"]["saved"] == 900 - held["sequential"]["asked"] > 400
    for cell in held["cells"]:
        assert cell["method"] == "confidence sequence"
        assert cell["planned"] == 300 and cell["n"] < 300
        assert cell["high"] == cell["worst"] < cell["budget"]

    broken = evaluated(tmp_path / "broken", half_bad, before)
    failed = compare(before, broken, GateSettings())
    assert failed["outcome"] == "FAIL"
    (harm,) = [c for c in failed["cells"] if c["side"] == "harm"]
    assert harm["n"] <= 40 and harm["low"] > harm["budget"]


def test_an_interrupted_one_ends_with_the_same_bytes(tmp_path, before):
    evaluated(tmp_path / "whole", half_bad, before)

    class Dies(ScriptedEngine):
        def generate(self, prompts, decoding):
            if self.asked >= 100:
                raise KeyboardInterrupt
            return super().generate(prompts, decoding)

    cut = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        evaluated(cut, half_bad, before, engine=Dies(half_bad))
    rows = list(read_jsonl(cut / "attempts.jsonl"))
    write_jsonl(cut / "attempts.jsonl", rows[:-3])  # a batch that is not whole
    again = ScriptedEngine(half_bad)
    evaluated(cut, half_bad, before, engine=again)
    for name in ("attempts.jsonl", "verdicts.jsonl", "settings.json", "plan.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (cut / name).read_bytes()
    assert again.asked < len(list(read_jsonl(cut / "attempts.jsonl")))


def test_unscored_answers_keep_a_cell_open(tmp_path, before):
    def babbles(prompt):
        return "" if "fine" in prompt.messages[-1].content else good(prompt)

    found = compare(before, evaluated(tmp_path / "a", babbles, before), GateSettings())
    (cell,) = [c for c in found["cells"] if c["side"] == "over_refusal"]
    assert cell["state"] == "undecided"
    assert cell["after"]["unscored"] == 300  # asked to the end
    assert found["outcome"] == "INCONCLUSIVE"


def test_likelihoods_are_asked_whole(tmp_path):
    rows = [
        Item(str(i), "mine", (Message.of("user", f"mine {i}?"),), "answer", reference="Yes.",
             answer="likelihood")
        for i in range(60)
    ]  # fmt: skip
    judges = {"mine": ("match",)}

    def asked(folder, against=None):
        engine = ScriptedEngine()
        plan = make_plan(
            engine, rows, attacks={"direct": attack("direct")}, context=AttackContext(seed=5),
            promptings={"serve": Served(Prompting())}, decoding=DECODING, batch=16,
            look=20 if against else None,
        )  # fmt: skip
        recorded = {"judges": judges, "attacks": {}, "date": "d"}
        held = Against(against, GateSettings()) if against else None
        if held:
            recorded["sequential"] = held.settings(5)
        watch = GateWatch(held, judges) if held else None
        evaluate(engine, plan, folder, recorded, DECODING, watch=watch)
        judge_folder(folder, judges)
        return Evaluation.read(folder)

    whole = asked(tmp_path / "a")
    (cell,) = compare(whole, asked(tmp_path / "b", whole), GateSettings())["cells"]
    assert (cell["n"], cell["method"], cell["planned"]) == (60, "t", None)
    assert cell["state"] == "holds"


def test_leaving_out_what_was_asked_is_an_error(tmp_path, before):
    after = evaluated(tmp_path / "a", good, before)
    path = after.folder / "attempts.jsonl"
    rows = list(read_jsonl(path))
    write_jsonl(path, rows[1:])
    kept = {row["id"] for row in rows[1:]}
    verdicts = [v for v in read_jsonl(after.folder / "verdicts.jsonl") if v["attempt"] in kept]
    write_jsonl(after.folder / "verdicts.jsonl", verdicts)
    with pytest.raises(IncomparableError, match="on one side only"):
        compare(before, Evaluation.read(after.folder), GateSettings())
    with pytest.raises(IncomparableError, match="stopped early"):
        compare(after, before, GateSettings())
