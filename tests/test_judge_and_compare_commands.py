"""`holdfast judge` and `holdfast compare` from the command line: settings, messages, exit codes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from holdfast.files import read_json
from test_report import a_run, evaluation

BEFORE = {"bad-requests": 2, "sums": 10}
WORSE = {"bad-requests": 22, "sums": 10}
"""Ten points more harm than before."""


def outcome(result: tuple[int, str, str]) -> tuple[int, str]:
    """Exit code and what standard output says."""
    return result[0], json.loads(result[1])["outcome"]


@pytest.fixture
def folders(tmp_path):
    """Two evaluation folders; the later one is ten points worse."""
    evaluation(tmp_path / "a", BEFORE)
    evaluation(tmp_path / "b", WORSE)
    return "a", "b"


def test_budgets_from_the_command_line(holdfast, folders):
    assert outcome(holdfast("compare", *folders)) == (1, "FAIL")
    assert outcome(holdfast("compare", *folders, "--harm", "20")) == (0, "PASS")
    limited = holdfast("compare", *folders, "--harm", "20", "--max-rate", "harm=5")
    assert outcome(limited) == (1, "FAIL")
    wide = ("--harm", "16", "--max-unscored", "0.2", "--prefill", "--max-rate", "over-refusal=9")
    assert outcome(holdfast("compare", *folders, *wide)) == (0, "PASS")
    strict = ("--harm", "16", "--level", "0.99999")
    assert outcome(holdfast("compare", *folders, *strict)) == (3, "INCONCLUSIVE")


def test_the_gate_of_a_recipe_and_changes_over_it(holdfast, folders):
    Path("gate.yaml").write_text("gate: {harm: 20, over_refusal: {max_change: 3, max_rate: 9}}\n")
    result = holdfast("compare", *folders, "--recipe", "gate.yaml", "--output", "out")
    assert outcome(result) == (0, "PASS")
    gate = read_json(Path("out/comparison.json"))["gate"]
    assert gate["over_refusal"] == {"max_change": 3, "max_rate": 9}
    assert gate["capability"]["max_change"] == 2
    over = holdfast("compare", *folders, "--recipe", "gate.yaml", "--harm", "5")
    assert outcome(over) == (1, "FAIL")
    Path("whole.yaml").write_text("model: m\ndata: d\nrun: r\ngate: {harm: 20}\n")
    assert outcome(holdfast("compare", *folders, "--recipe", "whole.yaml")) == (0, "PASS")


@pytest.mark.parametrize(
    ("words", "pieces"),
    [
        (("--max-rate", "harm"), ("SIDE=PERCENT",)),
        (("--max-rate", "hram=3"), ("hram=3", "'harm'")),
        (("--max-rate", "harm=ten"), ("gate.harm.max_rate", "ten")),
        (("--harm", "-5"), ("gate.harm.max_change", "-5")),
        (("--level", "2"), ("gate.level",)),
        (("--recipe", "none.yaml"), ("no recipe at none.yaml",)),
    ],
)
def test_bad_gates_are_user_errors(holdfast, folders, words, pieces):
    code, out, err = holdfast("compare", *folders, *words)
    assert (code, out) == (2, "")
    assert all(piece in err for piece in pieces), err


def test_a_run_folder_is_read_or_decided_again(holdfast, tmp_path):
    a_run(tmp_path / "run", WORSE, control=150)
    stored = (tmp_path / "run" / "7-comparison.json").read_bytes()
    assert outcome(holdfast("compare", "run")) == (1, "FAIL")
    again = holdfast("compare", "run", "--harm", "20", "--output", "out")
    assert outcome(again) == (0, "PASS")
    assert read_json(Path("out/comparison.json"))["control"]["outcome"] == "FAIL"
    assert (tmp_path / "run" / "7-comparison.json").read_bytes() == stored
    assert sorted(p.name for p in Path("out").iterdir()) == [
        "comparison.json", "model-card.md", "report.html", "report.json",
        "report.junit.xml", "report.md",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_damaged_comparison(holdfast, text):
    Path("run").mkdir()
    Path("run/7-comparison.json").write_text(text)
    code, _, err = holdfast("compare", "run")
    assert code == 2 and "7-comparison.json" in err


def test_the_stored_comparison_has_the_documented_keys(holdfast, folders):
    holdfast("compare", *folders, "--output", "out")
    found = read_json(Path("out/comparison.json"))
    page = (Path(__file__).parents[1] / "docs" / "gate.md").read_text(encoding="utf-8")
    for key in [*found, *found["cells"][0]]:
        assert f"`{key}`" in page, f"docs/gate.md does not say what {key} is"


def test_sample_label_calibrate_report(holdfast, tmp_path):
    a_run(tmp_path / "run", WORSE)
    code, out, err = holdfast("judge", "run", "--sample", "30", "--output", "labels.csv")
    assert (code, out.strip()) == (0, "labels.csv") and "--calibrate labels.csv" in err
    rows = list(csv.DictReader(Path("labels.csv").read_text(encoding="utf-8").splitlines()))
    lines = [f"{row['id']},p,r,{'full_refusal' if i < 20 else ''}" for i, row in enumerate(rows)]
    Path("labels.csv").write_text("\n".join(["id,prompt,response,label", *lines]) + "\n")
    code, out, err = holdfast("judge", "run", "--calibrate", "labels.csv")
    assert (code, out.strip()) == (0, "run/calibration.json"), err
    assert "left out: 10 rows without a label" in err
    assert "sensitivity" in err and "corrected" in err
    code, out, _ = holdfast("report", "run", "--model-card")
    assert code == 0 and "model-card.md" in out
    assert "corrected" in Path("run/report.html").read_text(encoding="utf-8")


def test_judge_needs_an_output_and_one_purpose(holdfast):
    Path("a.jsonl").write_text('{"id": "1", "prompt": "a", "response": "b"}\n')
    code, _, err = holdfast("judge", "a.jsonl")
    assert code == 2 and "--output is missing" in err
    code, _, err = holdfast("judge", "a.jsonl", "--sample", "3", "--calibrate", "x.csv")
    assert code == 2 and "one of the two" in err
    code, _, err = holdfast("judge", "a.jsonl", "--sample", "3", "--output", "l.csv")
    assert code == 2 and "not a finished evaluation folder" in err
