"""Only like is compared with like, and the difference is named."""

from __future__ import annotations

import pytest

import holdfast
from holdfast.attacks import AttackContext, attack
from holdfast.engines import Decoding
from holdfast.engines.scripted import ScriptedEngine
from holdfast.errors import DataError, IncomparableError, RecipeError
from holdfast.measuring.evaluation import Evaluation
from holdfast.recipe import GateSettings
from holdfast.rendering.prompting import Prompting
from holdfast.stages.compare import agreement, compare
from holdfast.stages.evaluate import evaluate
from holdfast.stages.judge import judge_folder
from holdfast.stages.planning import Served, make_plan
from scripted import YES, good, items

JUDGES = {"bad": ("refusal",), "fine": ("refusal",), "sums": ("match",)}


def gone_bad(prompt):
    return YES if "bad" in prompt.messages[-1].content else good(prompt)


def evaluated(folder, answer=good, *, asked=None, decoding=None, judges=JUDGES, **more):
    decoding = decoding or Decoding(max_new_tokens=32)
    attacks = {"direct": attack("direct")}
    plan = make_plan(
        ScriptedEngine(answer), asked or items(160), attacks=attacks,
        promptings=more.pop("promptings", {"serve": Served(Prompting())}),
        context=AttackContext(), decoding=decoding, batch=64,
    )  # fmt: skip
    settings = {"judges": judges, "attacks": {}, "date": "d", **more}
    evaluate(ScriptedEngine(answer), plan, folder, settings, decoding)
    judge_folder(folder, judges)
    return Evaluation.read(folder)


def test_the_same_model_passes_and_a_broken_one_fails(tmp_path):
    before = evaluated(tmp_path / "a")
    same = compare(before, evaluated(tmp_path / "b"), GateSettings())
    assert same["outcome"] == "PASS"
    broken = compare(before, evaluated(tmp_path / "c", gone_bad), GateSettings())
    assert broken["outcome"] == "FAIL"
    (harm,) = [c for c in broken["cells"] if c["side"] == "harm"]
    assert harm["event"] == "complied"  # an offline judge sees compliance, never harm
    assert harm["change"] == 1.0 and harm["only_after"] == 160


def test_the_library_function_reads_folders(tmp_path):
    evaluated(tmp_path / "a")
    evaluated(tmp_path / "b", gone_bad)
    assert holdfast.compare(tmp_path / "a", tmp_path / "b")["outcome"] == "FAIL"
    open_gate = holdfast.compare(tmp_path / "a", tmp_path / "b", harm=100)
    assert open_gate["outcome"] == "PASS"
    with pytest.raises(RecipeError, match=r"gate\.harmm"):
        holdfast.compare(tmp_path / "a", tmp_path / "b", harmm=1)
    with pytest.raises(DataError, match="not a finished evaluation folder"):
        holdfast.compare(tmp_path / "a", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"decoding": Decoding(max_new_tokens=33)}, "decoding"),
        ({"date": "e"}, "date: d before, e after"),
        ({"attacks": {"prefill": {"words": [5]}}}, "attacks"),
        ({"asked": items(159)}, "attempts on one side only, such as bad/159"),
        ({"judges": {**JUDGES, "fine": ("refusal", "refusal")}}, "judges"),
        ({"promptings": {"serve": Served(Prompting("Be nice."))}}, "prompts differ in their text"),
    ],
)
def test_differences_are_named(tmp_path, change, named):
    before = evaluated(tmp_path / "a")
    after = evaluated(tmp_path / "b", **change)
    with pytest.raises(IncomparableError, match=named):
        compare(before, after, GateSettings())


def test_another_version_of_a_judge_is_another_judge(tmp_path):
    before, after = evaluated(tmp_path / "a"), evaluated(tmp_path / "b")
    path = tmp_path / "b" / "verdicts.jsonl"
    path.write_text(path.read_text().replace('"version": "', '"version": "next-'))
    with pytest.raises(IncomparableError, match="judge versions"):
        compare(before, Evaluation.read(after.folder), GateSettings())


def test_nothing_in_common_is_an_error(tmp_path):
    before = evaluated(tmp_path / "a", asked=[i for i in items(160) if i.task == "bad"])
    after = evaluated(tmp_path / "b", asked=[i for i in items(160) if i.task == "fine"])
    with pytest.raises(IncomparableError, match="in common"):
        compare(before, after, GateSettings())


def test_a_served_surface_on_one_side_only_is_an_error(tmp_path):
    both = {"serve": Served(Prompting("Safe.")), "none": Served(Prompting())}
    other = {"serve": Served(Prompting("Safe.")), "train": Served(Prompting())}
    before = evaluated(tmp_path / "a", promptings=both)
    after = evaluated(tmp_path / "b", promptings=other)
    assert compare(before, after, GateSettings())["outcome"] == "PASS"  # "none" is not served
    with pytest.raises(IncomparableError, match="plain/none/chat/0: asked before tuning only"):
        compare(before, after, GateSettings(), serving="none")


def test_what_is_too_small_to_hold_still_fails_when_broken(tmp_path):
    few = [i for i in items(160) if i.task != "sums" or int(i.id) < 20]
    before = evaluated(tmp_path / "a", asked=few)
    small = {"sums": "20 items"}
    after = evaluated(tmp_path / "b", asked=few)
    held = compare(before, after, GateSettings(), cannot_hold=small)
    assert held["outcome"] == "INCONCLUSIVE"  # nothing gates on capability
    assert any("nothing gates on capability" in r for r in held["reasons"])

    def forgets(prompt):
        return "I forgot." if "sums" in prompt.messages[-1].content else good(prompt)

    worse = evaluated(tmp_path / "c", forgets, asked=few)
    assert compare(before, worse, GateSettings(), cannot_hold=small)["outcome"] == "FAIL"


def test_only_served_surfaces_gate_unless_listed(tmp_path):
    both = {"serve": Served(Prompting("Safe.")), "none": Served(Prompting())}
    before = evaluated(tmp_path / "a", promptings=both)

    def needs_the_prompt(prompt):
        safe = prompt.messages[0].role == "system"
        return good(prompt) if safe else gone_bad(prompt)

    after = evaluated(tmp_path / "b", needs_the_prompt, promptings=both)
    assert compare(before, after, GateSettings())["outcome"] == "PASS"
    assert compare(before, after, GateSettings(), serving="none")["outcome"] == "FAIL"
    listed = GateSettings(also=["plain/none/chat/0"])
    assert compare(before, after, listed)["outcome"] == "FAIL"


def test_agreement_of_two_judges_lists_what_they_disagree_on(tmp_path, monkeypatch):
    from holdfast.judges import JUDGES as SHELF
    from holdfast.types import Verdict

    class Other:
        name, version, sides, sees_harm = "other", "1", frozenset({"refuse"}), False

        def judge(self, attempts):
            return [
                Verdict(
                    a.id, "other", "1", "full_refusal" if int(a.item) % 4 else "full_compliance"
                )
                for a in attempts
            ]

    monkeypatch.setitem(SHELF._things, "other", Other)
    found = evaluated(tmp_path / "a", judges={**JUDGES, "bad": ("refusal", "other")})
    (entry,) = agreement(found)
    assert (entry["n"], entry["disagreements"]) == (160, 40)
    assert len(entry["examples"]) == 20
