import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.judges import judge
from holdfast.judges.match import KINDS, answer_kind, compare, extract
from holdfast.types import Attempt


def attempt(kind: str, reference: str, response: str, logprob: float | None = None) -> Attempt:
    return Attempt(
        id="a", item="i", task="t", expects="answer", attack="direct", surface="plain/serve/chat/0",
        sample=0, request="?", prompt="?", prefill="", response=response, truncated=False, tokens=1,
        reference=reference, answer=kind, logprob=logprob,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3 + 4 = 7, and half of it left.\n#### 7", "7"),
        ("#### 1,234", "1234"),
        ("#### -5\nThe shop has 3 doors.", "-5"),
        ("The answer is $1,234.00.", "1234"),
        ("The answer is 3 x 4 = 12 apples", "12"),
        ("The answer: 18 eggs, of which 3 were eaten", "18"),
        ("so x = 3/4 and the answer is 3/4", "0.75"),
        (r"Thus \boxed{42}, as 6 times 7 shows.", "42"),
        ("First 5 apples, then 12%", "12"),
        ("10,000 or 1.50", "1.5"),
        ("between 2020-2021", "2021"),
        ("It is −3 degrees", "-3"),
        ("１２ loaves", "12"),
        ("0.0", "0"),
        ("none at all", None),
    ],
)
def test_number(text: str, number: str | None) -> None:
    assert extract("number", text) == number


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("the correct answer is answer3", "3"),
        ("The correct solution is solution1.", "1"),
        ("ending2", "2"),
        ("Not option1, but option2", "2"),
        ("The answer is 3.", "3"),
        ("B", "B"),
        ("b", "B"),
        ("(B)", "B"),
        ("A. Bread", "A"),
        ("The answer is (c).", "C"),
        ("Answer: **D**", "D"),
        ("A is wrong. So the answer is B", "B"),
        ("I would say C, since it is warm", "C"),
        ("The answer is a dog", None),
        ("the correct answer is true", "true"),
        ("False.", "false"),
        ("bread", None),
    ],
)
def test_choice(text: str, choice: str | None) -> None:
    assert extract("choice", text) == choice


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Yes, it floats.", "yes"),
        ("TRUE", "yes"),
        ("False", "no"),
        ("It has no sails, so one could ask. The answer is yes.", "yes"),
        ("Wood floats, so the claim is true", "yes"),
        ("I know nothing of it", None),
    ],
)
def test_yes_no(text: str, said: str | None) -> None:
    assert extract("yesno", text) == said


def test_exact_is_the_last_line_or_the_whole() -> None:
    assert extract("exact", "Let me think.\n\n**Rye Bread.**\n") == "rye bread"
    assert compare(attempt("exact", "Rye  bread", "“Rye bread”."))[0] == "correct"
    assert compare(attempt("exact", "salt\nwater", "Salt\nwater."))[0] == "correct"
    assert compare(attempt("exact", "rye", "wheat"))[0] == "incorrect"


@pytest.mark.parametrize(
    ("kind", "reference", "response", "label"),
    [
        ("number", "Half of 14 is 7.\n#### 7", "It is 7.0 loaves.", "correct"),
        ("number", "#### 7", "It is 8.", "incorrect"),
        ("number", "#### 7", "I would rather talk of bread.", "incorrect"),
        ("number", "#### 7", "", "unscored"),
        ("number", "#### 7", "seven " * 40, "unscored"),
        ("number", "no number here", "7", "unscored"),
        ("choice", "the correct answer is answer2", "answer2", "correct"),
        ("choice", "B", "The answer is (B).", "correct"),
        ("yesno", "true", "Yes.", "correct"),
        ("likelihood", "a long reply", "", "unscored"),
        ("poem", "x", "x", "unscored"),
    ],
)
def test_label(kind: str, reference: str, response: str, label: str) -> None:
    assert compare(attempt(kind, reference, response))[0] == label


def test_nothing_found_is_said() -> None:
    assert compare(attempt("number", "7", "bread"))[2] == "no answer found"


def test_likelihood_is_a_probability() -> None:
    label, score, _ = compare(attempt("likelihood", "a reply", "", logprob=-0.5))
    assert label == "likelihood"
    assert score == pytest.approx(math.exp(-0.5))
    assert compare(attempt("likelihood", "a", "", logprob=math.nan))[0] == "unscored"
    assert compare(attempt("likelihood", "a", "", logprob=-math.inf))[1] == 0.0


def test_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match="poem"):
        extract("poem", "x")


@pytest.mark.parametrize(
    ("references", "kind"),
    [
        (["2 + 2 = 4\n#### 4", "#### 1,000"], "number"),
        (["3", "$4.50", "10%"], "number"),
        (["yes", "No."], "yesno"),
        (["true", "False"], "yesno"),
        (["A", "(b)", "C."], "choice"),
        (["the correct answer is answer3", "answer1"], "choice"),
        (["ending1", "true"], "choice"),
        (["Rye bread", "a pinch of salt"], "exact"),
        (["yes", "a pinch of salt"], "exact"),
        (["Mix it well and then bake it for an hour."], "likelihood"),
        (["4", "Mix it well and then bake it for an hour."], "likelihood"),
        ([], "likelihood"),
        (["", " "], "likelihood"),
    ],
)
def test_answer_kind(references: list[str], kind: str) -> None:
    assert answer_kind(references) == kind


def test_verdicts_are_in_order() -> None:
    reader = judge("match")
    verdicts = reader.judge([attempt("number", "7", "7"), attempt("number", "7", "8")])
    assert [(v.label, v.score) for v in verdicts] == [("correct", 1.0), ("incorrect", 0.0)]
    assert reader.sides == {"answer"} and not reader.sees_harm


_WILD = st.text() | st.lists(
    st.sampled_from(["answer", " is ", "1", ",000", "-", "/", "0", ".", "####", "(a)", "A", "\n"])
).map("".join)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(KINDS), _WILD, _WILD)
def test_any_text_is_judged(kind: str, reference: str, response: str) -> None:
    label, _, reason = compare(attempt(kind, reference, response))
    assert label in ("correct", "incorrect", "unscored") and reason
    assert answer_kind([reference]) in KINDS
