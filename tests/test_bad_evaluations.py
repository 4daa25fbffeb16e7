"""Judges and folders that misbehave: nothing crashes, passes silently, or changes a denominator."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from holdfast.errors import DataError, HoldfastError, IncomparableError, MaterialError
from holdfast.files import read_jsonl, write_json, write_jsonl
from holdfast.judges import JUDGES
from holdfast.measuring.evaluation import Evaluation, bad_outcome
from holdfast.recipe import GateSettings
from holdfast.stages.compare import compare
from holdfast.stages.judge import judge_attempts, judge_batch, judge_folder
from holdfast.stages.report import report_comparison
from holdfast.types import Attempt, Verdict

GATE = GateSettings()
SIDES = {"bad": "refuse", "fine": "comply", "sums": "answer"}
GOOD = {"refuse": "full_refusal", "comply": "full_compliance", "answer": "correct"}


def attempts(n: int = 150, tasks=SIDES) -> list[Attempt]:
    return [
        Attempt(f"{task}/{i}|direct|plain/serve/chat/0|0", str(i), task, expects, "direct",
                "plain/serve/chat/0", 0, f"{task} {i}?", f"{task} {i}?", "", "An answer.", False, 1)
        for task, expects in tasks.items()
        for i in range(n)
    ]  # fmt: skip


class Honest:
    """Says the good label of every side."""

    name, version = "stub", "1"
    sides = frozenset({"refuse", "comply", "answer"})
    sees_harm = False

    def judge(self, attempts):
        return [self.one(a) for a in attempts]

    def one(self, attempt):
        return Verdict(attempt.id, self.name, self.version, GOOD[attempt.expects])


class Nonsense(Honest):
    def one(self, attempt):
        return replace(super().one(attempt), label="banana")


class OtherSide(Honest):
    """Says `correct` of a refusal: read carelessly, that is "no event", and so safe."""

    def one(self, attempt):
        return replace(super().one(attempt), label="correct")


class NoNumber(Honest):
    def one(self, attempt):
        return replace(super().one(attempt), score=float("nan"))


class Likely(Honest):
    def one(self, attempt):
        return replace(super().one(attempt), label="likelihood", score=None)


class Unhashable(Honest):
    def one(self, attempt):
        return replace(super().one(attempt), label=["full_refusal"])


class Fewer(Honest):
    def judge(self, attempts):
        return super().judge(attempts)[::2]


class Stranger(Honest):
    def one(self, attempt):
        return replace(super().one(attempt), attempt="somebody else")


class Twice(Honest):
    """Two verdicts on each answer, which differ."""

    def judge(self, attempts):
        said = super().judge(attempts)
        return [*said, *(replace(v, label="unscored", reason="or not") for v in said)]


class NoList(Honest):
    def judge(self, attempts):
        return "I would rather not judge this."


class Silent(Honest):
    def judge(self, attempts):
        return None


class Timeout(Honest):
    asked = 0

    def judge(self, attempts):
        type(self).asked += 1
        raise TimeoutError("no answer within 60 s")


class Trips(Honest):
    """Raises on one answer in a batch."""

    def one(self, attempt):
        if attempt.item == "7":
            raise ZeroDivisionError("oops")
        return super().one(attempt)


BAD = [
    (Nonsense, "no label of this side"),
    (Unhashable, "no label of this side"),
    (NoNumber, "no number"),
    (Likely, "no"),
    (Stranger, "no verdict"),
    (Twice, "verdicts that differ"),
    (NoList, "no verdict"),
    (Silent, "no verdict"),
    (Timeout, "the judge failed: TimeoutError: no answer within 60 s"),
]


@pytest.mark.parametrize(("judge", "reason"), BAD, ids=lambda x: getattr(x, "__name__", ""))
def test_what_a_judge_gets_wrong_is_unscored_with_the_reason(judge, reason):
    asked = attempts(10)
    verdicts = judge_batch(judge(), asked)
    assert [v.attempt for v in verdicts] == [a.id for a in asked]
    assert {v.label for v in verdicts} == {"unscored"}
    assert all(reason in v.reason for v in verdicts)
    assert {(v.judge, v.version) for v in verdicts} == {("stub", "1")}


def test_a_label_of_another_side_is_never_safe():
    asked = attempts(3, {"bad": "refuse"})
    assert {v.label for v in judge_batch(OtherSide(), asked)} == {"unscored"}
    for expects, label in (("refuse", "correct"), ("comply", "incorrect"), ("answer", "banana")):
        assert bad_outcome(expects, Verdict("a", "x", "1", label)) is None


def test_a_judge_that_says_less_keeps_the_denominator():
    verdicts = judge_batch(Fewer(), attempts(10))
    assert len(verdicts) == 30
    assert sum(v.label == "unscored" for v in verdicts) == 15


def test_one_answer_that_trips_the_judge_costs_only_itself():
    verdicts = judge_batch(Trips(), attempts(20, {"bad": "refuse"}))
    assert [v.attempt.split("|")[0] for v in verdicts if v.label == "unscored"] == ["bad/7"]
    assert "ZeroDivisionError: oops" in verdicts[7].reason


def test_a_timeout_is_not_repeated_for_every_answer():
    Timeout.asked = 0
    judge_batch(Timeout(), attempts(200, {"bad": "refuse"}))
    assert Timeout.asked == 1


def test_what_the_user_can_cure_is_told_at_once():
    class Keyless(Honest):
        def judge(self, attempts):
            raise MaterialError("There is no key in HOLDFAST_KEY.")

    with pytest.raises(HoldfastError, match="HOLDFAST_KEY"):
        judge_batch(Keyless(), attempts(2))


def test_foreign_names_and_versions_are_the_judges_own():
    class Renamed(Honest):
        def one(self, attempt):
            return replace(super().one(attempt), judge="somebody", version="9")

    (verdict,) = judge_batch(Renamed(), attempts(1, {"bad": "refuse"}))
    assert (verdict.judge, verdict.version) == ("stub", "1")


# --- from the judge to the gate -------------------------------------------------------------------


def evaluated(folder: Path, judge=Honest, monkeypatch=None, n=150, tasks=SIDES) -> Evaluation:
    folder.mkdir()
    names = {task: ["stub"] for task in tasks}
    write_json(folder / "settings.json", {"judges": names, "date": "d"})
    write_jsonl(folder / "attempts.jsonl", attempts(n, tasks))
    JUDGES.names()
    monkeypatch.setitem(JUDGES._things, "stub", judge)
    judge_folder(folder, names)
    return Evaluation.read(folder)


@pytest.mark.parametrize("judge", [b for b, _ in BAD] + [Fewer], ids=lambda j: j.__name__)
def test_a_broken_judge_never_passes(tmp_path, monkeypatch, judge):
    before = evaluated(tmp_path / "before", monkeypatch=monkeypatch)
    after = evaluated(tmp_path / "after", judge, monkeypatch)
    comparison = compare(before, after, GATE)
    assert comparison["outcome"] != "PASS"
    for cell in comparison["cells"]:
        assert cell["after"]["n"] + cell["after"]["unscored"] == 150
        assert cell["after"]["unscored"] > 0
    report_comparison(comparison, before, after, tmp_path / "report")


def test_a_judge_that_fails_is_told_of(tmp_path, monkeypatch, capsys):
    evaluated(tmp_path / "x", Timeout, monkeypatch)
    assert "the judge stub failed on 450 answers; they are unscored" in capsys.readouterr().err


def test_all_unscored_is_inconclusive_on_both_sides(tmp_path, monkeypatch):
    arms = [evaluated(tmp_path / name, Nonsense, monkeypatch) for name in ("a", "b")]
    comparison = compare(*arms, GATE)
    assert comparison["outcome"] == "INCONCLUSIVE"
    assert all(cell["n"] == 0 for cell in comparison["cells"])
    report_comparison(comparison, *arms, tmp_path / "report")


def test_one_sided_sets_are_inconclusive(tmp_path, monkeypatch):
    tasks = {"bad": "refuse"}
    arms = [evaluated(tmp_path / n, monkeypatch=monkeypatch, tasks=tasks) for n in ("a", "b")]
    comparison = compare(*arms, GATE)
    assert comparison["outcome"] == "INCONCLUSIVE"
    assert any("nothing gates on capability" in reason for reason in comparison["reasons"])


def test_empty_sets_cannot_be_compared(tmp_path, monkeypatch):
    arms = [evaluated(tmp_path / n, monkeypatch=monkeypatch, n=0) for n in ("a", "b")]
    with pytest.raises(IncomparableError, match="in common"):
        compare(*arms, GATE)


# --- folders --------------------------------------------------------------------------------------


def test_attempts_with_duplicate_ids(tmp_path, monkeypatch):
    doubled = [*attempts(3), attempts(3)[0]]
    with pytest.raises(DataError, match="occurs more than once"):
        judge_attempts(doubled, {"bad": ("lab",)})
    evaluated(tmp_path / "a", monkeypatch=monkeypatch)
    path = tmp_path / "a" / "attempts.jsonl"
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")
    with pytest.raises(DataError, match="occurs twice, so it would be counted twice"):
        Evaluation.read(tmp_path / "a")


def lines(folder: Path, name: str) -> list[dict]:
    return list(read_jsonl(folder / f"{name}.jsonl"))


def test_verdicts_that_are_missing_double_or_foreign(tmp_path, monkeypatch):
    evaluated(tmp_path / "a", monkeypatch=monkeypatch)
    verdicts = lines(tmp_path / "a", "verdicts")
    path = tmp_path / "a" / "verdicts.jsonl"
    write_jsonl(path, verdicts[1:])
    short = Evaluation.read(tmp_path / "a")
    key = ("bad", "direct", "plain/serve/chat/0")
    assert [o for _, o in short.outcomes(key)].count(None) == 1  # unscored, not gone
    write_jsonl(path, [*verdicts, verdicts[0]])
    with pytest.raises(DataError, match=r"stub on bad/0.*occurs twice"):
        Evaluation.read(tmp_path / "a")
    write_jsonl(path, [*verdicts, {**verdicts[0], "attempt": "bad/999"}])
    with pytest.raises(DataError, match=r"judges 'bad/999', which attempts\.jsonl does"):
        Evaluation.read(tmp_path / "a")


@pytest.mark.parametrize(
    ("file", "broken"),
    [
        ("attempts", {"id": "x"}),
        ("attempts", {**asdict(attempts(1)[0]), "response": 7}),
        ("attempts", {**asdict(attempts(1)[0]), "expects": "whatever"}),
        ("verdicts", {"attempt": "bad/0"}),
        ("verdicts", {"attempt": "a", "judge": "j", "version": "1", "label": ["full_refusal"]}),
    ],
)
def test_damaged_lines_are_named(tmp_path, monkeypatch, file, broken):
    evaluated(tmp_path / "a", monkeypatch=monkeypatch, n=2)
    path = tmp_path / "a" / f"{file}.jsonl"
    path.write_text(json.dumps(broken) + "\n" + path.read_text())
    with pytest.raises(DataError, match=f"{file}.jsonl, line 1: not what Holdfast wrote there"):
        Evaluation.read(tmp_path / "a")
    path.write_text("{not json}\n")
    with pytest.raises(DataError, match="line 1: not what"):
        Evaluation.read(tmp_path / "a")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"judges": 3}'])
def test_damaged_settings(tmp_path, monkeypatch, text):
    evaluated(tmp_path / "a", monkeypatch=monkeypatch, n=2)
    (tmp_path / "a" / "settings.json").write_text(text)
    with pytest.raises(DataError, match=r"settings\.json"):
        Evaluation.read(tmp_path / "a")
