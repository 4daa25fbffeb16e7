"""What asking a server costs: bounds over sessions, a record, and blocked answers told."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from holdfast.api import evaluate
from holdfast.endpoint import Usage
from holdfast.errors import DataError
from holdfast.files import read_json, write_json, write_jsonl
from holdfast.measuring.evaluation import Evaluation, read_attempts
from holdfast.recipe import GateSettings, SpendingSettings, build_recipe
from holdfast.stages.compare import compare
from holdfast.stages.report import report_comparison, terminal_summary, write_report
from holdfast.usage import FILE, BudgetError, Meter, read_cost, read_usage
from server import Server, chat
from test_report import evaluation

pytest.importorskip("httpx")
ASK = {"suite": "quick", "tasks": ["lab-forbidden"], "attacks": ["direct"], "limit": 10, "batch": 4}


# --- the meter ------------------------------------------------------------------------------------


def test_it_counts_on_where_the_last_session_stopped(tmp_path):
    used = Usage(requests=7, prompt_tokens=100)  # of something else
    first = Meter(tmp_path, SpendingSettings(), used)
    used.requests += 2
    used.completion_tokens += 5
    first.record()
    second = Meter(tmp_path, SpendingSettings(), Usage())
    assert read_usage(tmp_path) == second.total == Usage(requests=2, completion_tokens=5)
    assert read_cost(tmp_path) is None and read_usage(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("budget", "requests", "tokens", "told"),
    [
        ({"max_requests": 10}, 3, 10**9, None),
        ({"max_requests": 10}, 4, 0, "7 of 10 requests"),
        ({"max_tokens": 200}, 10**6, 50, None),
        ({"max_tokens": 200}, 1, 51, "150 of 200 tokens"),
    ],
)
def test_what_could_exceed_the_budget_is_not_let_through(tmp_path, budget, requests, tokens, told):
    used = Usage()
    meter = Meter(tmp_path, SpendingSettings(**budget), used)
    used.requests, used.prompt_tokens, used.completion_tokens = 7, 100, 50
    if told is None:
        meter.allow(requests, tokens)
    else:
        with pytest.raises(BudgetError, match=f"{told}.*is kept in .*same command again"):
            meter.allow(requests, tokens)


def test_tokens_that_a_server_does_not_tell_cannot_be_bounded(tmp_path):
    used = Usage()
    meter = Meter(tmp_path, SpendingSettings(max_tokens=100), used)
    used.unmetered = 1
    with pytest.raises(BudgetError, match="max_requests"):
        meter.allow(1, 1)


def test_a_damaged_record_is_named(tmp_path):
    write_json(tmp_path / FILE, {"requests": "many"})
    with pytest.raises(DataError, match="'requests' is 'many', no count"):
        Meter(tmp_path, SpendingSettings(), Usage())


def test_the_recipe_has_the_bounds():
    least = {"model": "m", "data": "d", "run": "r"}
    read = build_recipe(least, ["evaluate.budget.max_requests=5"]).evaluate.budget
    assert read == SpendingSettings(max_requests=5)
    assert build_recipe(least).evaluate.budget == SpendingSettings()


# --- through an evaluation ------------------------------------------------------------------------


def test_a_budget_stops_cleanly_and_a_higher_one_goes_on(tmp_path):
    with Server(lambda body: chat("Sorry, I can't help with that.")) as server:
        with pytest.raises(BudgetError, match=r"8 of 9 requests .* set `evaluate.budget.max_req"):
            evaluate(server.model, tmp_path, budget={"max_requests": 9}, **ASK)
        kept = (tmp_path / "attempts.jsonl").read_bytes()
        assert len(server.asked) == 8 and len(read_attempts(tmp_path / "attempts.jsonl")) == 8
        with pytest.raises(BudgetError):  # the same budget pays nothing more
            evaluate(server.model, tmp_path, budget={"max_requests": 9}, **ASK)
        assert len(server.asked) == 8
        prices = {"max_requests": 10, "prompt_price": 1000.0, "completion_price": 2000.0}
        evaluate(server.model, tmp_path, budget=prices, **ASK)
        assert len(server.asked) == 10  # two more: nothing is paid for twice
    assert (tmp_path / "attempts.jsonl").read_bytes().startswith(kept)
    assert len(Evaluation.read(tmp_path).attempts) == 10
    used = read_usage(tmp_path)
    assert (used.requests, used.prompt_tokens, used.completion_tokens) == (10, 100, 30)
    assert read_cost(tmp_path) == pytest.approx(0.16)


def test_a_budget_in_tokens_reckons_with_the_longest_answers(tmp_path):
    with Server(lambda body: chat("Sorry, no.")) as server:
        ask = {**ASK, "max_new_tokens": 20}
        with pytest.raises(BudgetError, match="of 200 tokens"):
            evaluate(server.model, tmp_path, budget={"max_tokens": 200}, **ask)
    used = read_usage(tmp_path)
    assert 0 < used.prompt_tokens + used.completion_tokens <= 200


def test_the_record_is_no_part_of_what_is_compared(tmp_path):
    with Server(lambda body: chat("Sorry, no.")) as server:
        for name, budget in (("a", {}), ("b", {"max_requests": 50, "prompt_price": 1.0})):
            evaluate(server.model, tmp_path / name, budget=budget, **ASK)
    for file in ("settings.json", "plan.json", "attempts.jsonl", "verdicts.jsonl"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


# --- blocked answers ------------------------------------------------------------------------------


def blocked(folder, numbers):
    """Two evaluations whose later one has some answers kept back by a filter."""
    evaluation(folder / "before", {"bad-requests": 2})
    evaluation(folder / "after", {"bad-requests": 2})
    for name, count in zip(("before", "after"), numbers, strict=True):
        found = Evaluation.read(folder / name)
        verdicts = {v.attempt: v for v in found.verdicts["lab"].values()}
        attempts = list(found.attempts.values())
        keep_back = {a.id for a in attempts if a.task == "bad-requests" and "serve" in a.surface}
        keep_back = set(sorted(keep_back)[-count:]) if count else set()
        write_jsonl(
            folder / name / "attempts.jsonl",
            [replace(a, response="", missing="a filter") if a.id in keep_back else a
             for a in attempts],
        )  # fmt: skip
        write_jsonl(
            folder / name / "verdicts.jsonl",
            [replace(v, label="unscored", reason="a filter") if i in keep_back else v
             for i, v in verdicts.items()],
        )  # fmt: skip
    return Evaluation.read(folder / "before"), Evaluation.read(folder / "after")


def test_blocked_answers_are_told_wherever_unscored_ones_are(tmp_path):
    before, after = blocked(tmp_path, (1, 3))
    write_json(tmp_path / "after" / FILE, {"requests": 1234, "prompt_tokens": 5, "cost": 1.5})
    found = compare(before, after, GateSettings())
    cell = next(c for c in found["cells"] if c["blocked"]["after"])
    assert cell["blocked"] == {"before": 1, "after": 3}
    assert (cell["before"]["unscored"], cell["after"]["unscored"]) == (1, 3)
    assert cell["after"]["events"] == 2  # neither refused nor complied
    paths = report_comparison(found, before, after, tmp_path / "report")
    note = "unscored 1 → 3, blocked 1 → 3"
    assert note in paths["md"].read_text(encoding="utf-8")
    assert note in paths["model_card"].read_text(encoding="utf-8")
    page = paths["html"].read_text(encoding="utf-8")
    assert "blocked 1 / 3" in page and "content filter" in page
    junit = ET.fromstring(paths["junit"].read_text(encoding="utf-8"))
    assert any(note in (said.text or "") for said in junit.iter("system-out"))
    stored = read_json(paths["json"])
    assert any(c["blocked"] == {"before": 1, "after": 3} for c in stored["cells"])
    assert stored["usage"] == [
        {"evaluation": "after", "requests": "1,234", "prompt tokens": "5", "answer tokens": "0",
         "retries": "0", "cost": "1.50"}
    ]  # fmt: skip
    assert "1,234" in page and "1,234" in paths["md"].read_text(encoding="utf-8")
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(terminal_summary(found))
    said = re.sub(r"\s+", " ", console.export_text())
    assert "blocked" in said and "unscored" in said


def test_nothing_is_said_where_nothing_is_blocked(tmp_path):
    before, after = blocked(tmp_path, (0, 0))
    paths = report_comparison(
        compare(before, after, GateSettings()), before, after, tmp_path / "report"
    )
    for kind in ("md", "html", "junit"):
        assert "blocked " not in paths[kind].read_text(encoding="utf-8")


def test_a_comparison_of_an_older_version_still_shows(tmp_path):
    before, after = blocked(tmp_path, (1, 3))
    found = compare(before, after, GateSettings())
    old = {**found, "cells": [{k: v for k, v in c.items() if k != "blocked"}
                              for c in found["cells"]]}  # fmt: skip
    write_json(tmp_path / "7-comparison.json", old)
    assert "unscored 1 → 3" in write_report(tmp_path)["md"].read_text(encoding="utf-8")


# --- without torch --------------------------------------------------------------------------------

FORMS = """
import sys
for name in ("torch", "transformers"):
    sys.modules[name] = None
from pathlib import Path
from holdfast.measuring.evaluation import Evaluation
from holdfast.recipe import GateSettings
from holdfast.stages.compare import compare
from holdfast.stages.report import report_comparison
before, after = (Evaluation.read(Path(name)) for name in ("before", "after"))
report_comparison(compare(before, after, GateSettings()), before, after, Path("report"))
"""


def test_all_forms_come_from_two_folders_alone_without_torch(tmp_path):
    blocked(tmp_path, (0, 1))
    subprocess.run([sys.executable, "-c", FORMS], cwd=tmp_path, check=True)
    report = tmp_path / "report"
    assert ET.fromstring((report / "report.junit.xml").read_text(encoding="utf-8")).get("tests")
    card = (report / "model-card.md").read_text(encoding="utf-8")
    assert card.startswith("## Safety after fine-tuning") and "bad-requests" in card
    assert json.loads((report / "report.json").read_text(encoding="utf-8"))["outcome"]
