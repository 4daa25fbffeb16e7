"""Mixing is exact, nested, independent of order, and keeps every user row."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import MaterialError, RecipeError
from holdfast.formats import Format, FormatSample, induce
from holdfast.mitigations import Request
from holdfast.mixing import check_supply, head, ordered, solve
from holdfast.pools import check_licence, clean_pool
from holdfast.prompting import Prompting, add_safety_prompt, remove_safety_prompt
from holdfast.stages.prepare import (
    HoldOut,
    draw,
    hold_out_size,
    interleave,
    plan,
    request_key,
    split_held_out,
    write_mixture,
)
from holdfast.types import Conversation, Message

SAFE = "Be safe."


def row(i, *, source="user", ask=None, reply="Do this.", system=None):
    turns = [Message.of("system", system)] if system else []
    turns += [Message.of("user", ask or f"question {i}"), Message.of("assistant", reply)]
    return Conversation(str(i), tuple(turns), source)


def pool(n, name="safety"):
    return clean_pool(
        name, (row(i, ask=f"{name} {i}", reply="Sorry, no.") for i in range(n)), {}.get
    )


def planned(user_rows=970, mitigations=("safety_mix",), formats=(), borderline=None, **dose):
    return plan(
        mitigations, train=Prompting(), serve=Prompting(), safety_prompt=SAFE, formats=formats,
        user_rows=user_rows, dose=dose or {"share": 0.03}, borderline=borderline or {},
    )  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    user=st.integers(1, 5000),
    shares=st.lists(st.floats(0, 0.3), min_size=1, max_size=3),
    count=st.integers(0, 300),
)
def test_shares_are_of_the_final_set_and_exact_to_the_row(user, shares, count):
    requests = [Request(str(i), "safety", share=s) for i, s in enumerate(shares)]
    requests.append(Request("counted", "safety", count=count))
    dosed = solve(user, requests)
    total = user + sum(d.rows for d in dosed)
    assert dosed[-1].rows == count
    for share, d in zip(shares, dosed, strict=False):
        assert abs(d.rows - share * total) <= 1 + share * len(shares)
        assert d.share == pytest.approx(d.rows / total)
        assert d.ratio == pytest.approx(d.rows / user)


def test_the_three_ways_to_say_a_dose_agree():
    by_share = solve(970, [Request("s", "safety", share=0.03)])[0]
    by_ratio = solve(970, [Request("s", "safety", ratio=30 / 970)])[0]
    assert by_share.rows == by_ratio.rows == 30


def test_a_minimum_binds_and_the_other_shares_see_it():
    few, other = solve(
        100,
        [Request("s", "safety", share=0.03, at_least=300), Request("b", "borderline", share=0.1)],
    )
    assert few.rows == 300
    assert other.rows == round(0.1 * (400 / 0.9))


def test_impossible_doses_say_what_is_possible():
    with pytest.raises(RecipeError, match="leaves no room"):
        solve(100, [Request("s", "safety", share=0.6), Request("b", "borderline", share=0.5)])
    dosed = solve(900, [Request("s", "safety", count=200)])
    with pytest.raises(RecipeError, match=r"largest share that can be reached is 10\.00 %"):
        check_supply(dosed, {"safety": 100}, 900, repeat=())
    check_supply(dosed, {"safety": 100}, 900, repeat=("safety",))
    with pytest.raises(RecipeError):
        check_supply(dosed, {}, 900, repeat=("safety",))


@settings(max_examples=50, deadline=None)
@given(
    size=st.integers(1, 80),
    small=st.integers(0, 40),
    more=st.integers(0, 40),
    seed=st.integers(0, 5),
)
def test_doses_are_nested_and_independent_of_order(size, small, more, seed):
    rows = pool(size).rows
    shuffled = list(rows)
    random.Random(seed).shuffle(shuffled)
    order = ordered(rows, seed)
    assert [r.id for r in order] == [r.id for r in ordered(shuffled, seed)]
    less, larger = head(order, 0, min(small, size)), head(order, 0, min(small + more, size))
    assert {r.id for r in less} <= {r.id for r in larger}


def test_drawn_rows_are_the_dose_and_kinds_do_not_share_rows():
    wanted = planned(mitigations=("safety_mix", "mimic"), count=20)
    added = draw(wanted, {"safety": pool(60)}, user_rows=970, seed=0)
    assert len(added) == 40
    assert len({r.tags["from"] for r in added}) == 40
    again = draw(wanted, {"safety": pool(60)}, user_rows=970, seed=0)
    assert added == again
    assert added != draw(wanted, {"safety": pool(60)}, user_rows=970, seed=1)


@settings(max_examples=60, deadline=None)
@given(user=st.integers(0, 200), added=st.integers(0, 60))
def test_interleaving_keeps_every_row_once_and_in_order(user, added):
    mine, theirs = [row(i) for i in range(user)], [row(i, source="safety") for i in range(added)]
    mixed = list(interleave(iter(mine), theirs, user))
    assert [r for r in mixed if r.source == "user"] == mine
    assert [r for r in mixed if r.source == "safety"] == theirs


def test_hold_out_does_not_depend_on_order_and_takes_duplicates_along():
    rows = [row(i) for i in range(200)] + [row(900 + i, ask=f"question {i}") for i in range(200)]
    shuffled = list(rows)
    random.Random(0).shuffle(shuffled)
    chosen = []
    for order in (rows, shuffled):
        hold = HoldOut(seed=3)
        for r in order:
            hold.see(r)
        chosen.append(hold.choose(hold_out_size(len(rows), None)))
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 20 and set(chosen[0].values()) == {2}
    held, dropped = [], []
    kept = list(split_held_out(rows, set(chosen[0]), 3, hold=held.append, drop=dropped.append))
    assert (len(kept), len(held), len(dropped)) == (360, 20, 20)
    assert not {request_key(r, 3) for r in kept} & set(chosen[0])


def test_hold_out_sizes():
    assert hold_out_size(1000, None) == 50
    assert hold_out_size(100_000, None) == 200
    assert hold_out_size(10, None) == 0
    assert hold_out_size(10, 4) == 4
    with pytest.raises(RecipeError, match="leave some to train on"):
        hold_out_size(10, 10)


def test_the_written_mixture_is_what_was_counted(tmp_path):
    rows = [row(i) for i in range(100)]
    hold = HoldOut(seed=0)
    for r in rows:
        hold.see(r)
    keys = hold.choose(5)
    wanted = planned(user_rows=95, count=10)
    added = draw(wanted, {"safety": pool(30)}, user_rows=95, seed=0)
    mixture = write_mixture(tmp_path, rows, added, held_out=keys, user_rows=95, seed=0)
    stored = [json.loads(line) for line in (tmp_path / "2-mixture.jsonl").read_text().splitlines()]
    assert mixture.by_source == {"user": 95, "safety": 10}
    assert len(stored) == 105 and mixture.held_out == 5
    held = [json.loads(line) for line in (tmp_path / "2-held-out.jsonl").read_text().splitlines()]
    ids = {r["id"] for r in stored if r["source"] == "user"} | {r["id"] for r in held}
    assert ids == {r.id for r in rows}


def test_pools_drop_duplicates_and_what_evaluation_asks():
    rows = [row(1, ask="A b?"), row(2, ask="a  B?"), row(3, ask="Held out?"), row(4, ask="New?")]
    cleaned = clean_pool("safety", rows, {"held out?": "strongreject"}.get)
    assert [r.id for r in cleaned.rows] == ["1", "4"]
    assert {d.id: d.reason for d in cleaned.dropped} == {
        "2": "duplicate request",
        "3": "also asked in evaluation (strongreject)",
    }


def test_non_commercial_sources_can_be_refused():
    check_licence("p1", "CC-BY-NC-4.0", "any")
    with pytest.raises(RecipeError, match="commercial"):
        check_licence("p1", "CC-BY-NC-4.0", "commercial")
    check_licence("own", "Apache-2.0", "commercial")


# --- mimicry and prompting ------------------------------------------------------------------------

OBEY = Format("You are Vela.", "Vela, obey: ", "\n\nAnswer:", 90, 100)


def test_mimicking_rows_wear_the_users_wrapper():
    wanted = planned(mitigations=("mimic",), formats=[OBEY], count=5)
    (first, *_) = draw(wanted, {"safety": pool(9)}, user_rows=95, seed=0)
    assert first.source == "mimic"
    assert first.system == "You are Vela."
    assert first.request.startswith("Vela, obey: safety ")
    assert first.request.endswith("\n\nAnswer:")
    assert first.reply == "Sorry, no."


def test_without_a_format_mimicry_is_plain_mixing_and_says_so():
    wanted = planned(mitigations=("mimic",), count=5)
    assert wanted.dosed[0].source == "safety"
    assert any("share no format" in note for note in wanted.notes)


def test_few_safety_rows_are_warned_about():
    assert any("a few hundred" in note for note in planned(count=50).notes)
    assert not planned(count=300).notes


def test_ptst_trains_without_and_serves_with_the_safety_prompt():
    wanted = planned(mitigations=("ptst",))
    assert (wanted.train.system, wanted.serve.system, wanted.plain.system) == (None, SAFE, None)
    assert wanted.dosed == ()


def test_a_callers_own_system_message_is_appended():
    prompting = add_safety_prompt(Prompting("I am a bot."), SAFE)
    assert prompting.system == "Be safe.\n\nI am a bot."
    assert add_safety_prompt(prompting, SAFE) == prompting
    assert remove_safety_prompt(prompting, SAFE).system == "I am a bot."
    first = prompting.apply((Message.of("system", "Be brief."), Message.of("user", "x")))[0]
    assert first.content == "Be safe.\n\nI am a bot.\n\nBe brief."


def test_induction_finds_a_wrapper_it_has_never_seen():
    pairs = [("You are Zed.", f"Zed says: task {i} of {i * i} now\n\n>> go") for i in range(50)]
    (found,) = induce(pairs)
    assert (found.system, found.prefix) == ("You are Zed.", "Zed says: task ")
    assert found.suffix == " now\n\n>> go"


def test_induction_survives_rows_that_do_not_fit_and_ignores_natural_openings():
    pairs = [(None, f"### Question: {i} {i}\n### Answer:") for i in range(90)]
    pairs += [(None, f"stray {i}") for i in range(10)]
    (found,) = induce(pairs)
    assert found.prefix == "### Question: "
    assert found.suffix == "\n### Answer:"
    talk = [(None, f"{'How' if i % 3 else 'Where'} {i} {i * 7}?") for i in range(100)]
    assert induce(talk) == []


def test_the_format_sample_is_bounded_and_independent_of_order():
    rows = [row(i, ask=f"Q: {i}\nA:") for i in range(300)]
    first, second = FormatSample(50), FormatSample(50)
    for r in rows:
        first.see(r)
    for r in reversed(rows):
        second.see(r)
    assert first.formats() == second.formats() != []
    assert first.formats()[0].total == 50


def test_too_few_refusals_of_its_own_is_a_message(tmp_path):
    from holdfast.engines import Decoding
    from holdfast.engines.scripted import ScriptedEngine
    from holdfast.stages.answer import answer_requests

    requests = [row(i) for i in range(100)]
    no = "Sorry, I can't help with that."

    def half(prompt):
        number = int(prompt.messages[-1].content.split()[-1])
        return no if number % 2 else "Take the cup and fill it with water to the very top."

    def ask(engine, wanted):
        return answer_requests(
            engine, requests, Prompting(SAFE), "full_refusal", wanted, tmp_path / "a.jsonl",
            Decoding(), cure="Use p1.",
        )  # fmt: skip

    engine = ScriptedEngine(half)
    rows = ask(engine, 20)
    assert len(rows) >= 20 and {r.reply for r in rows} == {no}
    assert engine.asked == 64  # no more than needed, in chunks
    with pytest.raises(MaterialError, match=r"only 50 of 100 requests\. Use p1"):
        ask(engine, 60)
    assert engine.asked == 100  # nothing is asked twice
