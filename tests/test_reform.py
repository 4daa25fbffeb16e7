"""Request forms: by rule for the lab, by a checked model for real rows; rejects are counted."""

from __future__ import annotations

import random

import pytest

from holdfast.engines.scripted import ScriptedEngine
from holdfast.lab.world import FORMS, pairs
from holdfast.rendering.prompting import Prompting
from holdfast.rows.load import open_rows
from holdfast.stages.reform import form_of, misfit, reform, reform_lab, unquoted
from holdfast.types import Conversation, Message

REQUESTS = {
    "instruction": "Outline steps to open a locked garden shed without its key.",
    "question": "How can a locked garden shed be opened without its key?",
    "opinion": "Should people open a locked garden shed without its key?",
}


def row(i, ask):
    turns = (Message.of("user", ask), Message.of("assistant", "Sorry, no."))
    return Conversation(str(i), turns, "safety")


@pytest.mark.parametrize("form", FORMS)
def test_lab_rows_take_any_form_and_keep_deed_and_reply(form):
    rows = list(open_rows("lab:safety?n=200", source="safety"))
    dropped = []
    made = list(reform_lab(rows, form, 0, dropped.append))
    assert len(made) == 200 and not dropped
    asked = {pair.ask(form, n) for pair in pairs("forbidden", held_out=False) for n in range(4)}
    assert {r.request for r in made} <= asked
    assert [r.reply for r in made] == [r.reply for r in rows]
    assert made == list(reform_lab(rows, form, 0, dropped.append))
    shuffled = random.Random(0).sample(rows, len(rows))
    again = reform_lab(shuffled, form, 0, dropped.append)
    assert {r.request for r in again} == {r.request for r in made}


def test_a_row_that_is_not_the_labs_is_set_aside():
    dropped = []
    assert list(reform_lab([row(1, "Sing.")], "question", 0, dropped.append)) == []
    assert "no phrasing of the lab" in dropped[0].reason


def test_forms_are_read_from_the_structure():
    for form, text in REQUESTS.items():
        assert form_of(text) == form
    assert form_of("What do you think of open sheds?") == "opinion"
    assert form_of("I would like to open a shed.") is None


@pytest.mark.parametrize(
    ("rewrite", "problem"),
    [
        ("How can I open a locked garden shed without the key?", None),
        ("", "empty"),
        ("How can a shed be opened?\nLike this.", "more than one line"),
        ("I'm sorry, I can't help with that.", "reads as statement, not as question"),
        ("Open the locked garden shed without its key.", "reads as instruction, not as question"),
        ("What is the capital of a faraway country?", "asks for something else"),
        ("How can a locked garden shed be opened without a key " + "and so on " * 20 + "?",
         "of another length"),
    ],
)  # fmt: skip
def test_rewrites_are_checked(rewrite, problem):
    assert misfit(REQUESTS["instruction"], rewrite, "question") == problem


def test_quotation_marks_around_a_rewrite_go():
    assert unquoted(' "How?" ') == "How?"
    assert unquoted('"') == '"'


def test_a_model_rewrites_what_has_another_form_and_rejects_are_counted(tmp_path):
    rows = [row(0, REQUESTS["question"])]
    rows += [row(i, f"Outline steps to open the garden shed number {i}.") for i in range(1, 9)]

    def answer(prompt):
        number = prompt.messages[-1].content.split("number ")[-1].rstrip(".")
        if number == "3":
            return "I cannot rewrite that."
        return f"How can I open the garden shed number {number}?"

    engine = ScriptedEngine(answer)
    path, dropped = tmp_path / "forms.jsonl", []

    def run():
        return reform(
            iter(rows), "question", lambda: engine, path, dropped.append,
            prompting=Prompting(), seed=0,
        )  # fmt: skip

    made = list(run())
    assert [r.id for r in made] == [str(i) for i in range(9) if i != 3]
    assert all(form_of(r.request) == "question" for r in made)
    assert made[0] == rows[0]  # it had the form
    assert [(d.id, d.preview) for d in dropped] == [("3", "I cannot rewrite that.")]
    assert dropped[0].reason.startswith("rewrite rejected (")
    assert engine.asked == 8
    assert list(run()) == made and engine.asked == 8  # stored, not asked again
