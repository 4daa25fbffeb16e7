"""Calibration: the corrected figures cover the truth, the file is safe and read strictly."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.errors import DataError, RecipeError
from holdfast.files import read_json, write_json, write_jsonl
from holdfast.measuring.evaluation import Evaluation
from holdfast.measuring.labelling import beside, harmless, read_frame, write_sample
from holdfast.recipe import GateSettings
from holdfast.stages.calibrate import calibrate
from holdfast.stages.compare import compare
from holdfast.statistics import inference
from holdfast.statistics.calibration import (
    Reading,
    Stratum,
    allocate,
    confusion,
    corrected,
    kappa,
    share,
)
from holdfast.types import Attempt, Verdict

# --- pure functions -------------------------------------------------------------------------------


def test_every_stratum_is_seen_and_no_more_is_asked_than_there_is():
    given = allocate({"large": 10_000, "small": 40, "two": 2, "none": 0}, 100)
    assert sum(given.values()) == 100
    assert given["two"] == 2 and given["none"] == 0
    assert given["large"] > given["small"] > 2
    assert allocate({"a": 3, "b": 4}, 100) == {"a": 3, "b": 4}
    assert sum(allocate({i: 5 for i in range(10)}, 4).values()) == 4


def test_equal_weights_agree_with_the_plain_statistics():
    judge, person = list("aabbabbbaab"), list("aabbabaaabb")
    readings = [Reading(j, p, 7.0) for j, p in zip(judge, person, strict=True)]
    plain = inference.cohen_kappa(judge, person)
    weighted = kappa(readings)
    assert weighted.value == pytest.approx(plain.kappa)
    assert (weighted.low, weighted.high) == pytest.approx((plain.low, plain.high))
    hits = [j == p for j, p in zip(judge, person, strict=True)]
    found = share(hits, [7.0] * len(hits))
    assert (found.low, found.high) == pytest.approx(inference.wilson(sum(hits), len(hits)))
    assert confusion(readings)["a"] == {"a": 4, "b": 1}


def test_nothing_wrong_is_no_proof_of_nothing_wrong():
    all_right = [Reading("a", "a", 1.0), Reading("b", "b", 1.0)] * 4
    assert kappa(all_right).value == 1.0 and kappa(all_right).low < 0.6
    assert share([], []).value is None and kappa([]).value is None
    assert kappa([Reading("a", "a", 1.0)] * 5).value is None  # one label used throughout
    strata = {"a": Stratum(100, 3, 0, 0.0), "b": Stratum(100, 3, 3, 1.0)}
    found = corrected([[("b", 1.0), ("a", -1.0)]] * 100, strata)
    assert found.value == 1.0 and found.low < 0.5


def test_a_stratum_that_nobody_labelled_widens_the_interval_by_all_of_it():
    strata = {"seen": Stratum(90, 400, 0, 0.0), "unseen": Stratum(10, 0, 0, 0.5)}
    found = corrected([[("seen", 1.0)]] * 90 + [[("unseen", 1.0)]] * 10, strata)
    assert found.value == pytest.approx(0.05)
    assert found.low == 0.0 and found.high > 0.1


WORLDS = {
    "a judge that misses": ((0.85, 0.95), (0.85, 0.95), (0.02, 0.20)),
    "a judge that is misled by tuning": ((0.95, 0.98), (0.60, 0.98), (0.05, 0.15)),
    "a judge that cries wolf": ((0.95, 0.80), (0.95, 0.80), (0.10, 0.10)),
    "rare events": ((0.90, 0.99), (0.90, 0.99), (0.00, 0.01)),
}
"""Sensitivity and specificity before and after, and the true rates."""


def simulate(world, chance, n=300, total=100):
    """One study: true and judged outcomes, a stratified sample, the corrected change."""
    (before_judge, after_judge, rates) = world
    truth, judged = {}, {}
    for arm, quality, rate in zip(("b", "a"), (before_judge, after_judge), rates, strict=True):
        truth[arm] = [chance.random() < rate for _ in range(n)]
        judged[arm] = [
            chance.random() < (quality[0] if true else 1 - quality[1]) for true in truth[arm]
        ]
    members = {}
    for arm in ("b", "a"):
        for i in range(n):
            members.setdefault((arm, judged[arm][i]), []).append(i)
    given = allocate({key: len(rows) for key, rows in members.items()}, total)
    strata = {}
    for (arm, said), rows in members.items():
        drawn = chance.sample(rows, given[arm, said])
        events = sum(truth[arm][i] for i in drawn)
        strata[arm, said] = Stratum(len(rows), len(drawn), events, float(said))
    items = [[(("a", judged["a"][i]), 1.0), (("b", judged["b"][i]), -1.0)] for i in range(n)]
    naive = sum(judged["a"]) / n - sum(judged["b"]) / n
    return corrected(items, strata, 0.90), naive


@pytest.mark.parametrize("name", WORLDS)
def test_corrected_changes_cover_the_truth(name):
    world, chance = WORLDS[name], random.Random(5)
    true = world[2][1] - world[2][0]
    found = [simulate(world, chance) for _ in range(400)]
    covered = sum(f.low <= true <= f.high for f, _ in found) / len(found)
    bias = sum(f.value for f, _ in found) / len(found) - true
    naive = sum(n for _, n in found) / len(found) - true
    assert covered >= 0.87, covered  # 0.90, less three standard errors of the simulation
    assert abs(bias) < 0.01, bias
    if name == "a judge that is misled by tuning":
        assert abs(naive) > 0.05  # what the correction is for


def test_labels_narrow_the_interval():
    wide, narrow = (
        simulate(WORLDS["a judge that misses"], random.Random(3), total=total)[0]
        for total in (40, 400)
    )
    assert narrow.high - narrow.low < 0.7 * (wide.high - wide.low)


# --- a run folder ---------------------------------------------------------------------------------

TEXTS = {True: "=HYPERLINK(1)", False: "I can't."}


def evaluation(folder: Path, complied: set[int], wrong: set[int], n: int = 120) -> Evaluation:
    """Requests to be refused; `wrong` are answers whose verdict is the opposite of the truth."""
    attempts, verdicts = [], []
    for task, expects in (("bad", "refuse"), ("fine", "comply"), ("sums", "answer")):
        for i in range(n):
            truth = (i in complied) if expects == "refuse" else True
            attempts.append(
                Attempt(f"{task}/{i}|direct|plain/serve/chat/0|0", str(i), task, expects, "direct",
                        "plain/serve/chat/0", 0, f"+request {i}", "", "", TEXTS[truth], False, 1)
            )  # fmt: skip
            said = truth != (i in wrong) if expects == "refuse" else truth
            label = "full_compliance" if said else "full_refusal"
            verdicts.append(
                Verdict(attempts[-1].id, "refusal", "1", "correct" if task == "sums" else label)
            )
    judges = {"bad": ["refusal"], "fine": ["refusal"], "sums": ["match"]}
    write_json(folder / "settings.json", {"judges": judges})
    write_jsonl(folder / "attempts.jsonl", attempts)
    write_jsonl(
        folder / "verdicts.jsonl",
        [replace(v, judge="match") if v.label == "correct" else v for v in verdicts],
    )
    return Evaluation.read(folder)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose judge misses a third of the compliance after tuning."""
    folder = tmp_path / "run"
    before = evaluation(folder / "4-before", set(), set())
    after = evaluation(folder / "6-after", set(range(36)), set(range(12)))
    write_json(folder / "7-comparison.json", compare(before, after, GateSettings()))
    return folder


def fill_in(path: Path, run: Path, *, only: int | None = None) -> None:
    """Label the file as a person who knows the truth."""
    rows = labelled(path)
    for row in rows[:only]:
        row["label"] = "Full compliance" if "HYPERLINK" in row["response"] else "full_refusal"
    write(path, rows)


def labelled(path: Path) -> list[dict[str, str]]:
    """The rows of a file to label."""
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def write(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, ["id", "prompt", "response", "label"])
        writer.writeheader()
        writer.writerows(rows)


def test_the_file_to_label_is_blind_spread_and_safe(run, tmp_path):
    path = tmp_path / "labels.csv"
    assert write_sample(run, 60, path, seed=1) == 60
    rows = labelled(path)
    assert list(rows[0]) == ["id", "prompt", "response", "label"]
    assert all(not row["label"] for row in rows) and len({row["id"] for row in rows}) == 60
    text = path.read_text(encoding="utf-8")
    for hidden in ("before", "after", "full_", "|direct|"):
        assert hidden not in text
    assert all(cell[:1] not in "=+-@" for row in rows for cell in row.values() if cell)
    key = read_json(beside(path))
    arms = Counter(key["rows"][row["id"]]["arm"] for row in rows)
    assert set(arms) == {"before", "after"} and min(arms.values()) > 15
    assert all(s["drawn"] >= 2 for s in key["strata"])
    for row in key["rows"].values():
        assert 0 < row["probability"] <= 1
    again = tmp_path / "again.csv"
    write_sample(run, 60, again, seed=1)
    assert again.read_text() == path.read_text()
    write_sample(run, 60, tmp_path / "other.csv", seed=2)
    assert (tmp_path / "other.csv").read_text() != path.read_text()


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@x", "\t=1", "  =1", "\r=1"])
def test_no_cell_is_run_by_a_spreadsheet(cell):
    assert harmless(cell).startswith("'")
    assert harmless("a=1") == "a=1"
    assert harmless("\ud800\x00").isprintable()


def test_calibration_finds_what_the_judge_missed(run, tmp_path):
    path = tmp_path / "labels.csv"
    write_sample(run, 160, path)
    fill_in(path, run)
    found = calibrate(run, path)
    assert read_json(run / "calibration.json") == json.loads(json.dumps(found))
    (after,) = [row for row in found["arms"] if (row["arm"], row["side"]) == ("after", "harm")]
    assert after["sensitivity"]["value"] < 0.9 < after["specificity"]["value"] == 1.0
    assert after["confusion"]["full_refusal"]["full_compliance"] > 0
    (change,) = [row for row in found["changes"] if row["side"] == "harm"]
    assert change["judged"]["change"] == pytest.approx(24 / 120)
    corrected = change["corrected"]
    assert corrected["low"] < 36 / 120 < corrected["high"]
    assert corrected["value"] > change["judged"]["change"]
    (pooled,) = [row for row in found["pooled"] if row["side"] == "harm"]
    assert pooled["judged"] == pytest.approx(24 / 120) and pooled["cells"] == 1
    assert pooled["corrected"] == corrected  # one cell: the side is the cell
    assert found["labels"]["given"] == 160 and not found["labels"]["empty"]


def test_half_filled_files_count_what_they_have(run, tmp_path):
    path = tmp_path / "labels.csv"
    write_sample(run, 60, path)
    fill_in(path, run, only=25)
    rows = labelled(path)
    write(path, rows[:50])
    found = calibrate(run, path)
    assert found["labels"]["given"] == 25
    assert (found["labels"]["empty"], found["labels"]["gone"]) == (25, 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "refusal"}, r"line 3: unknown label 'refusal'\. Did you mean 'full_refusal'"),
        ({"id": ""}, "line 3: the id is missing"),
        ({"id": "x1"}, "line 3: the id 'x1' is not of this sample"),
        ({"id": "FIRST"}, "line 3: the id .* occurs twice"),
    ],
)
def test_bad_labels_are_named_by_their_line(run, tmp_path, change, message):
    path = tmp_path / "labels.csv"
    write_sample(run, 20, path)
    fill_in(path, run)
    rows = labelled(path)
    for row in rows:  # one line a row, so that lines can be counted
        row["prompt"] = "p"
    rows[1].update({k: rows[0]["id"] if v == "FIRST" else v for k, v in change.items()})
    write(path, rows)
    with pytest.raises(DataError, match=message):
        calibrate(run, path)
    assert not (run / "calibration.json").exists()


def test_labels_need_their_key_and_their_answers(run, tmp_path):
    path = tmp_path / "labels.csv"
    write_sample(run, 20, path)
    with pytest.raises(DataError, match="no row has a label yet"):
        calibrate(run, path)
    fill_in(path, run)
    evaluation(run / "6-after", {1}, set())
    with pytest.raises(DataError, match="drawn from other answers"):
        calibrate(run, path)
    beside(path).write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        calibrate(run, path)
    beside(path).unlink()
    with pytest.raises(DataError, match="Keep the two files together"):
        calibrate(run, path)
    with pytest.raises(DataError, match="no file of labels"):
        calibrate(run, tmp_path / "none.csv")


def test_a_begun_file_is_never_written_over(run, tmp_path):
    write_sample(run, 5, tmp_path / "labels.csv")
    with pytest.raises(RecipeError, match="may hold labels"):
        write_sample(run, 5, tmp_path / "labels.csv")
    with pytest.raises(RecipeError, match="--sample 0"):
        write_sample(run, 0, tmp_path / "none.csv")


def test_one_evaluation_folder_has_rates_and_no_changes(run, tmp_path):
    path = tmp_path / "labels.csv"
    write_sample(run / "6-after", 80, path)
    fill_in(path, run)
    found = calibrate(run / "6-after", path)
    assert found["changes"] == [] and {row["arm"] for row in found["arms"]} == {"answers"}
    (bad,) = [row for row in found["rates"] if row["task"] == "bad"]
    assert bad["judged"] == pytest.approx(0.2)
    assert bad["corrected"]["low"] < 0.3 < bad["corrected"]["high"]


def test_only_what_gates_is_sampled(run):
    frame, comparison = read_frame(run)
    assert comparison is not None
    assert {unit.attempt.task for unit in frame.units} == {"bad", "fine"}
    for cell in comparison["cells"]:
        cell["gates"] = cell["task"] == "bad"
    write_json(run / "7-comparison.json", comparison)
    assert {unit.attempt.task for unit in read_frame(run)[0].units} == {"bad"}


def test_nothing_that_people_could_judge(tmp_path):
    folder = tmp_path / "sums"
    write_json(folder / "settings.json", {"judges": {"sums": ["match"]}})
    made = Attempt("sums/1|direct|plain/serve/chat/0|0", "1", "sums", "answer", "direct",
                   "plain/serve/chat/0", 0, "1+1", "", "", "2", False, 1)  # fmt: skip
    write_jsonl(folder / "attempts.jsonl", [made])
    write_jsonl(folder / "verdicts.jsonl", [Verdict(made.id, "match", "1", "correct")])
    with pytest.raises(DataError, match="nothing that a person could label"):
        write_sample(folder, 10, tmp_path / "labels.csv")
