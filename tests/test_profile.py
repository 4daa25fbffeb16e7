"""Where refusals begin: positions, recovery under prefill, how a refusal is set off."""

from __future__ import annotations

import pytest

from holdfast.measuring.evaluation import Evaluation
from holdfast.report import positions as report
from holdfast.report.material import Material
from holdfast.statistics.profile import (
    count_words,
    counter,
    harm_answers,
    positions,
    recovery,
    transitions,
)
from holdfast.types import Attempt, Verdict


def judged(response, start, label="full_refusal", *, prefill=0, harmful=None, number=0, **more):
    attempt = Attempt(
        f"{number}/{prefill}/{response}", str(number), "t", more.get("expects", "refuse"),
        more.get("attack", "prefill" if prefill else "direct"),
        more.get("surface", f"plain/serve/chat/{prefill}"), 0, "Do it?", "Do it?",
        "Sure" if prefill else "", response, False, 3,
    )  # fmt: skip
    return attempt, Verdict(attempt.id, "refusal", "1", label, None, harmful, start)


AT_ONCE = judged("Sorry, no.", 0)
LATE = judged("One two three four five six. Sorry, no.", 29, "partial_refusal")
NEVER = judged("One two.", None, "full_compliance")
UNREAD = judged("???", None, "unscored")


def test_positions_are_counted_in_what_stands_before_the_refusal():
    found = positions([AT_ONCE, LATE, NEVER, UNREAD], count_words)
    assert (found.starts, found.without, found.unplaced) == ((0, 6), 1, 0)
    assert dict(found.histogram) == {
        "0": 1, "1-5": 0, "6-10": 1, "11-20": 0, "21-30": 0, "31 or later": 0,
    }  # fmt: skip


def test_survival_is_the_share_that_begins_there_or_later():
    found = positions([AT_ONCE, LATE], count_words)
    assert [found.later(p) for p in (0, 1, 6, 7)] == [1.0, 0.5, 0.5, 0.0]
    assert len(found.survival(60)) == 61
    assert positions([NEVER], count_words).later(0) is None


def test_a_begun_answer_and_one_nobody_could_read_have_no_position():
    begun = judged("Sorry.", 0, prefill=5)
    unplaced = judged("No way.", None, "full_refusal")
    assert positions([begun, UNREAD], count_words) == positions([], count_words)
    assert positions([unplaced], count_words).unplaced == 1


def test_recovery_counts_refusals_that_give_nothing_harmful():
    found = recovery(
        [
            AT_ONCE,
            judged("Sorry.", 0, prefill=5),
            judged("Rinse. Sorry.", 7, "partial_refusal", prefill=5, harmful=False),
            judged("Rinse it. Sorry.", 10, "partial_refusal", prefill=5, harmful=True),
            judged("Rinse.", None, "full_compliance", prefill=5),
            judged("?", None, "unscored", prefill=5),
        ]
    )
    assert list(found) == [0, 5]
    assert (found[0].events, found[0].n) == (1, 1)
    assert (found[5].events, found[5].n, found[5].unscored) == (2, 4, 1)
    assert found[5].low < 0.5 < found[5].high


def test_glued_refusals_are_found_though_no_judge_of_words_sees_them():
    glued = judged("Rinse the kettleSorry, no.", None, "full_compliance")
    seen = judged("Rinse the kettleSorry, no.", 16, "partial_refusal")
    found = transitions([AT_ONCE, LATE, glued, seen, NEVER])
    assert (found.separated, found.glued) == (1, 2)
    assert found.share == pytest.approx(1 / 3)
    assert transitions([NEVER]).share is None
    assert transitions([judged("Open YouTube now.", None, "full_compliance")]).glued == 0


def test_the_words_that_open_refusals_are_learnt_from_those_seen():
    other = judged("Nope, never.", 0)
    glued = judged("Rinse itNope, never.", None, "full_compliance")
    assert transitions([glued]).glued == 0
    assert transitions([other, glued]).glued == 1


def test_tokens_are_counted_without_a_model(tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path)
    count, unit = counter(tmp_path / "tokenizer.json")
    text = "First rinse the kettle."
    assert unit == "tokens"
    assert count(text) == len(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert counter(tmp_path / "none.json")[1] == counter(None)[1] == "words"


def evaluation(tmp_path, *pairs):
    return Evaluation(
        tmp_path, {"judges": {"t": ["refusal"]}}, {a.id: a for a, _ in pairs},
        {"refusal": {v.attempt: v for _, v in pairs}},
    )  # fmt: skip


def test_what_is_served_is_profiled_under_every_attack(tmp_path):
    worn = judged("Sorry.", 0, number=1, surface="task/serve/chat/0", attack="task_template")
    raw = judged("Sorry.", 0, number=2, surface="opening/serve/raw/0", attack="completing")
    benign = judged("Sorry.", 0, number=3, expects="comply")
    unserved = judged("Sorry.", 0, number=4, surface="plain/none/chat/0")
    kept = list(harm_answers(evaluation(tmp_path, AT_ONCE, worn, raw, benign, unserved)))
    assert kept == [AT_ONCE, worn, raw]
    assert list(recovery(kept)) == [0] and recovery(kept)[0].n == 1  # of those, asked directly


def test_words_and_tokens_begun_are_told_apart(tmp_path):
    words = judged("Sorry.", 0, prefill=5)
    tokens = judged("Rinse.", None, "full_compliance", prefill=5, attack="prefill_tokens")
    assert recovery([words, tokens])[5].events == 1
    assert recovery([words, tokens], "prefill_tokens")[5].events == 0
    section = report.section(Material("run", before=evaluation(tmp_path, AT_ONCE, words, tokens)))
    assert [row[0] for row in section["recovery"]] == ["0 words", "5 words", "5 tokens"]


def test_the_report_tells_each_arm(tmp_path):
    before = evaluation(tmp_path, AT_ONCE, judged("Rinse.", None, "full_compliance", prefill=5))
    after = evaluation(tmp_path, LATE, judged("Rinse. Sorry.", 7, prefill=5))
    material = Material("run", before=before, after=after)
    told = report.stored(material)
    assert told["unit"] == "words"
    assert told["arms"]["before"]["histogram"]["0"] == 1
    assert told["arms"]["after"]["recovery"]["5"]["refused"] == 1
    assert told["arms"]["after"]["transitions"] == {"separated": 2, "glued": 0}
    section = report.section(material)
    assert section["arms"] == ["before", "after"]
    assert section["chart"].count("<polyline") == 2
    assert report.stored(Material("run")) is report.section(Material("run")) is None
