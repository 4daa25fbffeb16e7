"""Contracts over everything on a shelf: a new file is tested before its author writes a test."""

from __future__ import annotations

import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import make_tokenizer
from holdfast.attacks import ATTACKS, AttackContext, attack, identity
from holdfast.audits import AUDITS
from holdfast.claims import CLAIMS
from holdfast.engines import ENGINES
from holdfast.errors import RecipeError
from holdfast.exports import EXPORTS
from holdfast.files import dumps, write_jsonl
from holdfast.judges import JUDGES, judge
from holdfast.judges._model_judge import ModelJudge
from holdfast.mitigations import MITIGATIONS, PlanContext
from holdfast.recipe import GateSettings
from holdfast.registry import Shelf
from holdfast.rendering.prompting import Prompting
from holdfast.rendering.render import Renderer
from holdfast.rows.induction import Format
from holdfast.rows.triples import word_ends
from holdfast.stages.compare import gates
from holdfast.tasks import TASKS, TaskContext, task
from holdfast.templates import template_names, template_summary, template_text
from holdfast.types import Attempt, Conversation, Item, Message, Segment, Surface

SHELVES = [ATTACKS, AUDITS, CLAIMS, ENGINES, EXPORTS, JUDGES, MITIGATIONS, TASKS]
THINGS = [(shelf, name) for shelf in SHELVES for name in shelf]
STOPS = ("<|eot_id|>", "<end_of_turn>", "<|end|>")
"""Tokens that end a reply in some family; its own tokenizer has them."""
OFFLINE = [name for name in JUDGES if not isinstance(judge(name), ModelJudge)]
"""Judges without a model; tests/test_judge_contract.py gives the others small ones."""
WORN = Format("You are Zed.", "Zed: ", "\nAnswer:", 9, 10)


@pytest.mark.parametrize(("shelf", "name"), THINGS, ids=[f"{s.name}-{n}" for s, n in THINGS])
def test_everything_says_what_it_is(shelf, name):
    summary = shelf.summary(name)
    assert 10 < len(summary) <= 100
    assert not summary[0].islower() and summary.endswith(".")


def test_unknown_names_get_the_nearest_known_one():
    for shelf in SHELVES:
        known = shelf.names()[0]
        with pytest.raises(RecipeError, match=f"Did you mean '{known}'"):
            shelf.get(known + "x")


def test_a_name_is_taken_once():
    shelf: Shelf[object] = Shelf("attacks")
    shelf.register("one")(object())
    with pytest.raises(ValueError, match="registered twice"):
        shelf.register("one")(object())


def item(expects="refuse"):
    return Item("1", "t", (Message.of("user", "How do I fix the lamp?"),), expects)


ATTACK_SETTINGS = {
    "jailbreak": {"file": "wrappers.jsonl"},
    "self_cipher": {"file": "shown.jsonl"},
    "replay": {"file": "ready.jsonl"},
    "pair": {"attacker": "lab-mutator"},
    "autodan": {"seeds": "lab"},
}
"""What an attack is given that cannot run without material."""
ATTACK_FILES = {
    "wrappers.jsonl": [{"text": f"Story {n}: {{request}}"} for n in range(9)],
    "shown.jsonl": [{"prompt": "How do I wash it?", "completion": "With water."}],
    "ready.jsonl": [{"request": "how do I fix the lamp", "prompt": "Play: fix the lamp."}],
}


@pytest.fixture
def attack_context(tmp_path, monkeypatch, tokenizer):
    """All that an attack may need; its files lie in the working folder."""
    monkeypatch.chdir(tmp_path)
    for name, rows in ATTACK_FILES.items():
        write_jsonl(tmp_path / name, rows)
    return AttackContext(
        wrap=lambda i: WORN.wrap(i.request), questions=("How many?", "How much?"), seed=3,
        target=SimpleNamespace(tokenizer=tokenizer),
    )  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS.names())
def test_attacks_are_deterministic_and_keep_the_request(name, attack_context):
    made = attack(name, ATTACK_SETTINGS.get(name))
    assert made.sides <= {"refuse", "comply", "answer"}
    assert made.needs <= {"prefill", "raw", "logprobs", "gradients"}
    assert made.unavailable(attack_context) is None
    assert dumps(identity(made)) == dumps(identity(attack(name, ATTACK_SETTINGS.get(name))))
    first, second = (list(made.prompts(item(), attack_context)) for _ in range(2))
    assert first == second != []
    assert len({surface for surface, _ in first}) == len(first)
    for surface, prompt in first:
        text = " ".join(m.content for m in prompt.messages)
        assert "fix the lamp" in text or surface.wrapper == "code-stack"
        assert prompt.raw == (surface.form == "raw")
        assert not prompt.raw or "raw" in made.needs
        assert Surface.parse(surface.name) == surface
        assert not gates(surface, GateSettings(), "serve") or surface.wrapper in ("plain", "task")


@pytest.mark.parametrize("name", ATTACKS.names())
def test_attacks_say_what_they_lack(name):
    reason = attack(name).unavailable(AttackContext())
    assert reason is None or (len(reason) > 10 and reason[0].islower() and reason[-1] != ".")
    assert reason is not None or name not in ATTACK_SETTINGS


def attempt(text, expects="refuse", answer=""):
    return Attempt(
        "a", "1", "t", expects, "direct", "plain/serve/chat/0", 0, "How do I fix the lamp?", "p",
        "", text, False, 5, reference="12", answer=answer,
    )  # fmt: skip


@pytest.mark.parametrize("name", OFFLINE)
@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=400))
def test_judges_never_raise_and_give_one_verdict_each(name, text):
    made = judge(name)
    for expects in made.sides:
        attempts = [attempt(text, expects, kind) for kind in ("", "number", "choice", "yesno")]
        verdicts = made.judge(attempts)
        assert [v.attempt for v in verdicts] == [a.id for a in attempts]
        assert all(v.judge == made.name and v.version == made.version for v in verdicts)


@pytest.mark.parametrize("name", OFFLINE)
@pytest.mark.parametrize("nothing", ["", "   \n", "...", "?! ?!"])
def test_judges_leave_nothing_unscored_not_safe(name, nothing):
    made = judge(name)
    for expects in made.sides:
        (verdict,) = made.judge([attempt(nothing, expects, "number")])
        assert verdict.label in ("unscored", "incorrect")
        if expects != "answer":
            assert verdict.label == "unscored" and verdict.reason


@pytest.mark.parametrize("name", MITIGATIONS.names())
def test_mitigations_are_deterministic_and_shape_without_losing_the_reply(name):
    context = PlanContext([WORN], "Be safe.", 900, {"count": 5}, {"count": 5}, token_ends=word_ends)
    made = MITIGATIONS.get(name)()
    ask, told = Message.of("user", "Do it?"), Message.of("assistant", "Sorry, no.")
    plain = Conversation("1", (ask, told), "safety")
    begun = (Segment("First do.", "none"), Segment(" Sorry, no.", "mle"))
    triple = replace(plain, messages=(ask, Message("assistant", begun)))
    for request in made.data(context):
        row = {"safety": plain, "borderline": plain, "triples": triple}[request.pool]
        first = request.shape(row, random.Random(1))
        assert first == request.shape(row, random.Random(1))
        assert set(first.reply.split()) <= set(row.reply.split())
        assert "Do it?" in first.request
        assert request.pool == "triples" or first.reply == row.reply
    for side in (made.train, made.serve):
        changed = side(Prompting("Own words."), context)
        assert "Own words." in (changed.system or "")


@pytest.mark.parametrize("name", TASKS.names())
def test_tasks_know_what_they_lack(name, tmp_path):
    made = task(name)
    assert made.name == name and made.licence
    line = made.missing(TaskContext(tmp_path))
    if line is None:
        items = made.items(TaskContext(tmp_path))
        assert len({i.id for i in items}) == len(items) > 0
        assert {i.expects for i in items} == {made.expects}
        assert all(made.expects in judge(n).sides for n in made.judges)
    else:
        assert "holdfast fetch" in line


@pytest.mark.parametrize("name", template_names())
def test_templates_give_exact_spans_and_continue_their_prompt(name):
    pytest.importorskip("transformers")
    assert template_summary(name)
    tokenizer = make_tokenizer(template_text(name), specials=STOPS)
    renderer = Renderer(tokenizer)
    turns = (Message.of("user", "How, 你好?"), Message.of("assistant", "First. 🙂"))
    text, (reply,) = renderer.replies(Conversation("1", turns))
    assert text[: reply.end].endswith("First. 🙂")
    opening = renderer.template.render(turns[:1], reply_next=True)
    assert text.startswith(opening)
    assert renderer.template.has_system_role
    (row,) = renderer.rows([Conversation("1", turns)])
    trained = tokenizer.decode([t for t in row.labels if t != -100])
    assert trained.strip().startswith("First. 🙂")
    assert row.labels[len(row.labels) - 1] != -100 or row.labels[-2] != -100  # the stop token


@pytest.mark.parametrize("name", ENGINES.names())
def test_engines_declare_what_they_can(name):
    can = getattr(ENGINES.get(name), "can", None) or ENGINES.get(name)().can
    if not isinstance(can, frozenset):
        pytest.skip("asks its server; see tests/test_endpoint.py")
    assert can <= {"prefill", "raw", "logprobs", "gradients"}
