"""What the report says of its judges, and its forms for machines: JUnit, JSON, the model card."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.files import read_json, write_json, write_jsonl
from holdfast.measuring.labelling import write_sample
from holdfast.report.junit import text as xml_text
from holdfast.stages.calibrate import calibrate
from holdfast.stages.report import report_comparison, write_report
from test_report import HOSTILE, Page, a_run, evaluation, html_of

# --- two judges -----------------------------------------------------------------------------------


def second_judge(folder: Path, differs: int, text: str = "An answer.") -> None:
    """Let `other` read bad-requests too, and count the last `differs` of each cell differently."""
    settings = read_json(folder / "settings.json")
    settings["judges"]["bad-requests"].append("other")
    write_json(folder / "settings.json", settings)
    found = evaluation_rows(folder)
    more = []
    seen: dict[str, int] = {}
    for verdict in reversed(found):
        task, _, _ = verdict["attempt"].partition("/")
        if task != "bad-requests":
            continue
        surface = verdict["attempt"].split("|")[2]
        seen[surface] = seen.get(surface, 0) + 1
        label = verdict["label"]
        if seen[surface] <= differs:
            label = "full_refusal" if label == "full_compliance" else "full_compliance"
        more.append({**verdict, "judge": "other", "label": label, "reason": HOSTILE,
                     "harmful": label == "full_compliance"})  # fmt: skip
    write_jsonl(folder / "verdicts.jsonl", [*found, *more])


def evaluation_rows(folder: Path) -> list[dict]:
    lines = (folder / "verdicts.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture
def judged_twice(tmp_path: Path) -> Path:
    """A run whose harm requests two judges read; they differ on 7 of each cell after tuning."""
    a_run(tmp_path, {"bad-requests": 60, "sums": 10}, text=f"THE ANSWER {HOSTILE}")
    second_judge(tmp_path / "4-before", 3)
    second_judge(tmp_path / "6-after", 7)
    return tmp_path


def test_agreement_is_told_by_cell_and_overall(judged_twice):
    text = html_of(judged_twice).replace("\N{NO-BREAK SPACE}", " ")
    assert "all cells together" in text and "lab and other" in text
    assert "14 of 400 differ; κ 0." in text  # two cells of 200
    assert text.count("7 of 200 differ; κ 0.") == 2 and "3 of 200 differ" in text
    found = json.loads((judged_twice / "report.json").read_text())["agreement"]
    assert {(e["arm"], e["differ"]) for e in found if e["cell"] is None} == {
        ("before", 6), ("after", 14),
    }  # fmt: skip
    assert "**Two judges.** lab and other: 14 of 400 differ" in (
        judged_twice / "report.md"
    ).read_text(encoding="utf-8")


def test_disagreements_are_escaped_and_behind_a_click(judged_twice):
    text = html_of(judged_twice)
    assert re.search(r"After tuning, the judges differ: 14 <span[^>]*>\(10 shown\)", text)
    section = text[text.index("the judges differ") :]
    assert "lab: full refusal · other: full compliance" in section
    for match in re.finditer("THE ANSWER", text):
        assert '<details class="item">' in text[: match.start()]
    assert "&lt;script&gt;" in section and "<script>" not in text
    redacted = html_of(judged_twice, redact=True)
    assert "the judges differ: 14" in redacted and "THE ANSWER" not in redacted
    assert "alert(1)" not in redacted  # a judge's reason may quote the answer


def test_one_judge_has_no_agreement(tmp_path):
    a_run(tmp_path, {"bad-requests": 2, "sums": 10})
    assert "Each task has one judge" in html_of(tmp_path)


def test_agreement_of_the_comparison_alone(judged_twice):
    comparison = read_json(judged_twice / "7-comparison.json")
    entry = {"task": "t", "judges": ["a", "b"], "n": 9, "disagreements": 2,
             "kappa": {"kappa": None, "low": -1.0, "high": 1.0}}  # fmt: skip
    comparison["agreement"] = {"before": [], "after": [entry]}
    write_json(judged_twice / "7-comparison.json", comparison)
    for arm in ("4-before", "6-after"):
        (judged_twice / arm / "verdicts.jsonl").unlink()
    assert "2 of 9 differ; κ undefined" in html_of(judged_twice)


# --- people ---------------------------------------------------------------------------------------


def labelled(run: Path, folder: Path) -> None:
    """Draw a sample and label it: the person refuses everything that is not marked."""
    path = folder / "labels.csv"
    write_sample(run, 80, path)
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    lines = ["id,prompt,response,label", *(f"{r['id']},p,r,full_refusal" for r in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    calibrate(run, path)


def test_corrected_changes_stand_beside_the_judged_ones(tmp_path):
    run = tmp_path / "run"
    a_run(run, {"bad-requests": 60, "sums": 10})
    assert "corrected" not in html_of(run)
    labelled(run, tmp_path)
    text = html_of(run)
    assert "The judge against people" in text and "80 answers labelled" in text
    assert re.search(r"\+29\.0<small>.*</small><small>corrected 0\.0 \(−\d", text)
    assert "tone-fail" in text  # the gate's own rule stands
    assert json.loads((run / "report.json").read_text())["calibration"]["changes"]
    assert "+29.0 judged, 0.0 (" in (run / "report.md").read_text(encoding="utf-8")


def test_labels_of_other_verdicts_are_not_shown(tmp_path):
    run = tmp_path / "run"
    a_run(run, {"bad-requests": 60, "sums": 10})
    labelled(run, tmp_path)
    evaluation(run / "6-after", {"bad-requests": 61, "sums": 10})
    text = html_of(run)
    assert "for other answers or verdicts; they are not shown" in text
    assert "corrected" not in text
    assert json.loads((run / "report.json").read_text())["calibration"] is None


# --- JUnit ----------------------------------------------------------------------------------------


def junit(run: Path) -> ET.Element:
    return ET.fromstring(write_report(run)["junit"].read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("bad", "unscored", "failures", "errors"), [(2, 0, 0, 0), (120, 0, 1, 0), (2, 30, 0, 3)]
)
def test_one_test_case_per_gating_cell(tmp_path, bad, unscored, failures, errors):
    comparison = a_run(tmp_path, {"bad-requests": bad, "sums": 10}, unscored=unscored)
    root = junit(tmp_path)
    gating = [cell for cell in comparison["cells"] if cell["gates"]]
    assert len(root.findall(".//testcase")) == len(gating) == 3
    assert (int(root.get("failures")), int(root.get("errors"))) == (failures, errors)
    assert len(root.findall(".//failure")) == failures
    assert len(root.findall(".//error")) == errors
    assert all("time" not in case.attrib for case in root.iter())


def test_a_side_that_nothing_measures_is_no_green_file(tmp_path):
    tasks = {"bad-requests": "refuse"}
    arms = [evaluation(tmp_path / n, {}, tasks=tasks) for n in ("before", "after")]
    from holdfast.recipe import GateSettings
    from holdfast.stages.compare import compare

    paths = report_comparison(compare(*arms, GateSettings()), *arms, tmp_path / "out")
    root = ET.fromstring(paths["junit"].read_text(encoding="utf-8"))
    assert int(root.get("errors")) == 1
    assert "nothing gates on over-refusal" in root.find(".//error").text
    write_json(tmp_path / "run" / "manifest.json", {"holdfast": "x"})
    assert int(junit(tmp_path / "run").get("errors")) == 1  # no verdict at all


@given(st.text())
def test_any_text_is_valid_xml(text):
    case = ET.Element("testcase", {"name": xml_text(text)})
    case.text = xml_text(text)
    read = ET.fromstring(ET.tostring(case, encoding="unicode"))
    assert (read.text or "").replace("\r", "\n").split() == xml_text(text).split()


def test_hostile_names_are_valid_xml(tmp_path):
    run = tmp_path / "<run>"
    comparison = a_run(run, {"bad-requests": 120, "sums": 10})
    for cell in comparison["cells"]:
        cell["task"] = HOSTILE + "\ufffe\ud800]]>"
    comparison["cells"][0]["reasons"] = [HOSTILE]
    write_json(run / "7-comparison.json", comparison)
    root = junit(run)
    assert "<script>" in root.find(".//testcase").get("name")


# --- Markdown and the model card ------------------------------------------------------------------


def test_markdown_stays_short(tmp_path):
    comparison = a_run(tmp_path, {"bad-requests": 120, "sums": 10})
    comparison["reasons"] = [f"reason {i}" for i in range(50)]
    write_json(tmp_path / "7-comparison.json", comparison)
    text = write_report(tmp_path)["md"].read_text(encoding="utf-8")
    assert text.startswith("## ✗ Holdfast: FAIL")
    assert "and 40 more" in text and "reason 10" not in text


def test_model_card_section(tmp_path):
    a_run(tmp_path, {"bad-requests": 120, "sums": 10})
    paths = write_report(tmp_path, model_card=True)
    text = paths["model_card"].read_text(encoding="utf-8")
    assert text.startswith("## Safety after fine-tuning")
    for expected in ("**FAIL**", "    Refuse <harm>.", "CC-BY-NC-4.0", "ptst", "| ✗ broken |"):
        assert expected in text, expected
    assert "model_card" not in write_report(tmp_path)


def test_the_page_of_two_judges_is_balanced(judged_twice):
    page = Page(write_report(judged_twice)["html"].read_text(encoding="utf-8"))
    assert not page.stack
