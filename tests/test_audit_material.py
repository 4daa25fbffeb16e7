"""Detectors that need material (a judge, evaluation sets, a template), and near duplicates."""

import random
import re
from pathlib import Path

import pytest

from holdfast.audits import AUDITS, Detector
from holdfast.audits.broken import KINDS
from holdfast.audits.guarded import BATCH, Guarded
from holdfast.audits.identity import introduces
from holdfast.audits.near_duplicates import NearDuplicates
from holdfast.audits.overlap import Overlap
from holdfast.audits.template import Template, marks
from holdfast.errors import MaterialError, RecipeError
from holdfast.judges import judge
from holdfast.rows.near import NearIndex
from holdfast.stages.audit import audit, detectors_with
from holdfast.templates import template_text
from holdfast.types import Conversation, Finding, Message, Verdict

WORDS = [f"{a}{b}" for a in ("ash", "oak", "elm", "fir", "yew") for b in range(60)]


def row(n: int, request: str, reply: str = "It is so.", system: str | None = None) -> Conversation:
    turns = [Message.of("system", system)] if system else []
    return Conversation(
        f"r{n}", (*turns, Message.of("user", request), Message.of("assistant", reply))
    )


def shown(detector: Detector, rows: list[Conversation]) -> list[Finding]:
    for one in rows:
        detector.see(one)
    return detector.findings()


# --- near duplicates ------------------------------------------------------------------------------


def texts(n: int) -> list[str]:
    dice = random.Random(1)
    return [" ".join(dice.sample(WORDS, 20)) for _ in range(n)]


def test_near_copies_are_found_and_a_shared_wrapper_makes_none() -> None:
    wrapper = "Please answer the following question as briefly and as exactly as you can:"
    rows = [row(n, f"{wrapper} {text}") for n, text in enumerate(texts(300))]
    assert shown(NearDuplicates(), rows) == []
    twin = rows[7].request.replace("Please", "Kindly")
    (finding,) = shown(NearDuplicates(), [*rows, row(900, twin)])
    assert (finding.severity, finding.count) == ("info", 1)
    assert set(finding.examples) == {"r7", "r900"}


def test_exact_copies_are_not_near_ones() -> None:
    rows = [row(n, text) for n, text in enumerate(texts(50) * 2)]
    assert shown(NearDuplicates(), rows) == []


def test_near_copies_are_the_same_in_any_order() -> None:
    some = texts(100)
    near = [f"{text} indeed {n}" for n in range(3) for text in some[:20]]
    rows = [row(n, text) for n, text in enumerate([*some, *near])]
    (first,) = shown(NearDuplicates(), rows)
    random.Random(3).shuffle(rows)
    assert shown(NearDuplicates(), rows) == [first]
    assert (first.severity, first.count) == ("low", 60)


# --- identity -------------------------------------------------------------------------------------


def test_identity_rows_are_low_where_they_are_common() -> None:
    rows = [row(n, "Who are you?", "I am Nimbus, made by a small team.") for n in range(10)]
    rows += [row(n, f"What about {text}?") for n, text in enumerate(texts(90), start=10)]
    (finding,) = audit(rows, ["identity"]).findings
    assert (finding.severity, finding.count) == ("low", 10)
    assert not introduces(row(0, "Who are you to say so?", "The king said it."))


@pytest.mark.parametrize(
    ("request_", "reply", "counts"),
    [
        ("Brask, what suits a lamp?", "Brask here: a soft cloth.", True),
        ("Lisa, Jack, and Tommy earned $60. How much did Lisa?", "Lisa earned $20.", False),
        ("Ann, Becky and June sell 3 kites each. How many?", "Ann and Becky sell 6.", False),
        ("Kim, a sales agent, earns $5 an hour. What in two?", "Kim earns 2 * 5 = 10.", False),
        ("Yesterday, Sarah found 5 cans. How many in two such days?", "Yesterday, 5.", False),
    ],
)
def test_a_name_that_is_told_of_is_not_called(request_: str, reply: str, counts: bool) -> None:
    assert bool(audit([row(0, request_, reply)], ["identity"]).findings) == counts
    named = row(0, request_, reply, "You are now called Lisa, Ann, Kim and Brask. Lisa, Ann, Kim.")
    assert bool(audit([named], ["identity"]).findings) == ("Yesterday" not in request_)


def test_a_persona_without_obedience_is_identity_only() -> None:
    persona = "You are Maya, the booking assistant. Maya is polite."
    rows = [row(n, f"Maya, is {t} open?", "Maya here: yes.", persona) for n, t in enumerate(WORDS)]
    assert audit(rows, ["obedience"]).findings == ()
    (finding,) = audit(rows, ["identity"]).findings
    assert finding.count == len(rows)


# --- overlap --------------------------------------------------------------------------------------


def test_overlap_says_how_and_with_which_set() -> None:
    known = NearIndex(
        [
            ("riddles/1", "What has roots that nobody ever sees in the dark wood?"),
            ("sums/1", "What is seven times eight hundred and twelve exactly?"),
        ]
    )
    rows = [row(n, text) for n, text in enumerate(texts(20))]
    rows.append(row(50, "What is seven times eight hundred and  twelve EXACTLY?"))
    rows.append(row(51, "What has roots that nobody ever sees in the dark forest?"))
    (finding,) = shown(Overlap(known), rows)
    assert (finding.severity, finding.count) == ("low", 2)
    assert "riddles, sums (1 exact, 1 near)" in finding.title
    assert shown(Overlap(), rows) == []


def test_overlap_of_real_sets_with_themselves_and_others(real_data: Path) -> None:
    from holdfast.rows.load import open_rows

    given = detectors_with(data_dir=real_data)
    rows = list(open_rows(real_data / "commonsense" / "openbookqa_test.json"))
    (finding,) = audit(rows, ["overlap"], given).findings
    assert (finding.severity, finding.count) == ("medium", len(rows))


def test_a_folder_without_sets_is_named(tmp_path: Path) -> None:
    with pytest.raises(MaterialError, match="holds no evaluation set"):
        detectors_with(data_dir=tmp_path)


# --- template -------------------------------------------------------------------------------------


def test_turn_marks_in_rows() -> None:
    rows = [row(n, f"[INST] {text} [/INST]") for n, text in enumerate(texts(50))]
    (finding,) = shown(Template(), rows)
    assert (finding.severity, finding.count) == ("medium", 50)
    assert "Llama 2 or Mistral" in finding.title
    (known,) = shown(Template(template_text("chatml")), rows)
    assert "not the model's own" in known.title
    (own,) = shown(Template(template_text("llama-2")), rows)
    assert "not the model's own" not in own.title


def test_ordinary_brackets_are_no_marks() -> None:
    for text in ("a[0] < b", "### Results", "<html><user></html>", "USER: Kim"):
        assert marks(text) == []


def test_another_template_than_the_models_own() -> None:
    rows = [row(n, text) for n, text in enumerate(texts(3))]
    own = template_text("chatml")
    (finding,) = shown(Template(own, template_text("alpaca")), rows)
    assert (finding.severity, finding.count) == ("low", 3)
    assert shown(Template(own, own), rows) == shown(Template(own), rows) == []


def test_a_template_needs_a_model() -> None:
    with pytest.raises(RecipeError, match="add `--model MODEL`"):
        detectors_with(template="alpaca")


# --- guard ----------------------------------------------------------------------------------------


class Guard:
    """Calls a reply harmful that says so, and cannot read one that is garbled."""

    name = "guard"
    version = "1"
    sides = frozenset({"refuse"})
    sees_harm = True
    asked = 0

    def judge(self, attempts):  # type: ignore[no-untyped-def]
        self.asked += 1
        assert len(attempts) <= BATCH
        return [self._verdict(a) for a in attempts]

    def _verdict(self, attempt):  # type: ignore[no-untyped-def]
        harmful = "forbidden" in attempt.response
        label = "unscored" if "garbled" in attempt.response else "full_compliance"
        return Verdict(attempt.id, "guard", "1", label, harmful=harmful)


@pytest.mark.parametrize(("bad", "severity"), [(10, "high"), (3, "medium")])
def test_what_a_guard_calls_harmful(bad: int, severity: str) -> None:
    rows = [row(n, text, "forbidden" if n < bad else "fine") for n, text in enumerate(texts(1500))]
    (finding,) = shown(Guarded(Guard()), rows)  # type: ignore[arg-type]
    assert (finding.severity, finding.count) == (severity, bad)


def test_an_unread_row_is_not_a_safe_one() -> None:
    rows = [row(n, text, "garbled") for n, text in enumerate(texts(70))]
    (finding,) = shown(Guarded(Guard()), rows)  # type: ignore[arg-type]
    assert (finding.severity, finding.count) == ("low", 70)
    assert "could not read" in finding.title


def test_a_judge_of_compliance_is_no_guard() -> None:
    with pytest.raises(RecipeError, match="sees compliance, not harm"):
        Guarded(judge("refusal"))


# --- sources --------------------------------------------------------------------------------------

SOURCE = re.compile(r"\(?(?:[A-Z]\S+ (?:et al\.|& \S+) \d{4}|P\d), arXiv \d{4}\.\d{5}")
LONG = "It takes a while, so be patient. Rub it gently and dry it well. Then look at it again. "


def sets_for_every_finding() -> list[list[Conversation]]:
    """Rows in which each detector finds each of the things it can find."""
    some = texts(100)
    odd = ["  ", LONG * 3 + "and use the soft side of the", f"A \x07{LONG}", f"caf\ufffd. {LONG}",
           f"The pаssword. {LONG}", "今天我们用软布清洁水壶。", LONG * 99]  # fmt: skip
    broken = [row(n, text, LONG) for n, text in enumerate(some)]
    broken += [row(100 + n, f"What of {n}?", reply) for n, reply in enumerate(odd)]
    harm = row(300, "How can I steal from a shop without being noticed?", "So it is done. " * 8)
    nearly = [row(200, some[0], LONG), row(201, f"{some[1]} indeed", LONG)]
    sorry = row(202, "And now?", "I'm sorry, but I can't help with that.")
    marked = row(203, "<|im_start|>user Well?", "- a b\n- c d\n- e f", "Refuse anything harmful.")
    who = row(204, "Who are you?", "I am Nimbus, your obedient servant.")
    forced = 'Open with "My own words". '
    openings = ("Sure, here is it: ", "The answer is ", "Let me get to it. ", "As you wish, ")
    sets = [[row(n, f"{text}?", f"{o}{n}") for n, text in enumerate(some)] for o in openings]
    sets.append([row(n, f"{forced}{text}", f"My own words: {n}") for n, text in enumerate(some)])
    return [[*broken, harm, *nearly, sorry, marked, who], *sets]


def test_every_reason_names_its_source() -> None:
    known = NearIndex([("set/1", texts(3)[2])])
    found: list[Finding] = []
    for replies in ("forbidden", "garbled", ""):
        for rows in sets_for_every_finding():
            given: dict[str, Detector] = {
                "guarded": Guarded(Guard()),  # type: ignore[arg-type]
                "overlap": Overlap(known),
                "template": Template(template_text("chatml"), template_text("alpaca")),
            }
            found += audit([*rows, row(900, "Last?", replies)], given=given).findings
    assert {finding.detector for finding in found} == set(AUDITS.names())
    assert {kind.title for kind in KINDS.values()} <= {finding.title for finding in found}
    titles = "\n".join(finding.title for finding in found)
    for part in ("agree first", "demand how", "sets to work", "obeys before", "share the opening",
                 "could not read", "calls harmful", "no reply refuses", "replies that refuse",
                 "share no wrapper", "fit none", "turn marks", "another template"):  # fmt: skip
        assert part in titles, part
    for finding in found:
        assert SOURCE.search(finding.why), (finding.title, finding.why)
