"""Mixing is exact, nested, independent of order, and keeps every user row."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import DataError, MaterialError, RecipeError
from holdfast.mitigations import MITIGATIONS, Request
from holdfast.recipe import build_recipe
from holdfast.rendering.prompting import Prompting, add_safety_prompt, remove_safety_prompt
from holdfast.rows.induction import Format, FormatSample, induce
from holdfast.rows.mixing import (
    check_supply,
    deal,
    largest_share,
    ordered,
    solve,
    split_validation,
)
from holdfast.rows.near import NearIndex
from holdfast.rows.pools import check_licence, clean_pool, in_categories, reply_length
from holdfast.stages.prepare import (
    Drawn,
    HoldOut,
    Sorting,
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


def pool(n, name="safety", seed=0):
    rows = (row(i, ask=f"{name} {i}", reply="Sorry, no.") for i in range(n))
    made = clean_pool(name, rows, {}.get)
    made.rows = ordered(made.rows, seed)
    return made


def planned(user_rows=970, mitigations=("safety_mix",), formats=(), borderline=None, **dose):
    return plan(
        mitigations, train=Prompting(), serve=Prompting(), safety_prompt=SAFE, formats=formats,
        user_rows=user_rows, dose=dose or {"share": 0.03}, borderline=borderline or {},
    )  # fmt: skip


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


def test_a_minimum_lets_go_when_another_minimum_makes_its_share_larger():
    requests = [
        Request("s", "safety", share=0.03, at_least=30),
        Request("b", "borderline", share=0.01, at_least=10_000),
    ]
    few, many = solve(100, requests)
    assert many.rows == 10_000
    assert few.rows == round(0.03 * 10_100 / 0.97)


def test_shares_are_the_numbers_that_were_written():
    for share, user, rows in ((0.3, 7, 3), (0.07, 93, 7), (0.005, 199, 1), (0.1, 4, 0)):
        assert solve(user, [Request("s", "safety", share=share)])[0].rows == rows
    half_a_row = solve(9, [Request("s", "safety", ratio=0.5)])[0]
    assert half_a_row.rows == 5


def test_impossible_doses_say_what_is_possible():
    with pytest.raises(RecipeError, match=r"`s` can have less than 50 %"):
        solve(100, [Request("s", "safety", share=0.6), Request("b", "borderline", share=0.5)])
    requests = [Request("s", "safety", count=200)]
    dosed = solve(900, requests)
    with pytest.raises(RecipeError, match=r"largest share that can be reached is 10\.00 %"):
        check_supply(900, requests, dosed, {"safety": 100}, repeat=())
    check_supply(900, requests, dosed, {"safety": 100}, repeat=("safety",))
    with pytest.raises(RecipeError):
        check_supply(900, requests, dosed, {}, repeat=("safety",))


def test_the_largest_share_leaves_the_other_doses_as_they_were_asked_for():
    requests = [
        Request("safety", "safety", share=0.2), Request("borderline", "borderline", share=0.1),
    ]  # fmt: skip
    # 100 rows beside 890 of the user's: 990 rows are nine tenths, 110 look-alikes the tenth.
    assert largest_share(890, requests, "safety", 100) == pytest.approx(100 / 1100)


def test_drawn_rows_are_the_dose_and_kinds_do_not_share_rows():
    wanted = planned(mitigations=("safety_mix", "mimic"), count=20)
    added = draw(wanted, {"safety": pool(60)}, user_rows=970, seed=0).rows
    assert len(added) == 40
    assert len({r.tags["from"] for r in added}) == 40
    again = draw(wanted, {"safety": pool(60)}, user_rows=970, seed=0).rows
    assert added == again
    assert added != draw(wanted, {"safety": pool(60, seed=1)}, user_rows=970, seed=1).rows


def test_rows_are_repeated_only_where_there_are_too_few():
    rows = pool(7).rows
    (hand,) = deal(rows, [17])
    assert [r.id for r in hand] == [r.id for r in [*rows, *rows, *rows[:3]]]
    first, second = deal(rows, [5, 2])
    assert len({r.id for r in (*first, *second)}) == 7


# --- validation -----------------------------------------------------------------------------------


def test_validation_comes_on_top_of_the_dose_from_every_source():
    requests = [Request("safety", "safety", share=0.03)]
    split = split_validation(9700, requests, 0.1)
    assert (split.user, split.added) == (970, (30,))
    assert solve(9700 - split.user, requests)[0].rows == 270
    counted = split_validation(9700, requests, 500)
    assert counted.total == 500 and counted.added == (15,)
    assert split_validation(9700, requests, 0).total == 0
    with pytest.raises(RecipeError, match="leave some to train on"):
        split_validation(9700, requests, 10_000)


def test_validation_rows_are_never_trained_on_and_do_not_change_the_dose():
    wanted = planned(count=20).with_validation([5])
    drawn = draw(wanted, {"safety": pool(60)}, user_rows=970, seed=0)
    without = draw(planned(count=20), {"safety": pool(60)}, user_rows=970, seed=0)
    assert drawn.rows == without.rows
    assert len(drawn.validation) == 5
    asked = {r.request for r in drawn.rows}
    assert not asked & {r.request for r in drawn.validation}
    with pytest.raises(RecipeError, match="5 to validate on"):
        draw(wanted, {"safety": pool(24)}, user_rows=970, seed=0)


def test_user_rows_for_validation_take_their_duplicates_along():
    rows = [row(i, ask=f"q {i // 2}") for i in range(40)]
    keys = HoldOut(0)
    for r in rows:
        keys.see(r)
    held = keys.choose(2)
    chosen = keys.choose_rows(7, frozenset(held))
    assert sum(chosen.values()) == 6  # each request has two rows; half a request is not split
    assert not held.keys() & chosen.keys()


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
    entries = Sorting(3, frozenset(chosen[0]))(rows)
    kept = list(split_held_out(entries, hold=held.append, drop=dropped.append))
    assert (len(kept), len(held), len(dropped)) == (360, 20, 20)
    assert not {request_key(entry.row().request, 3) for entry in kept} & set(chosen[0])


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
    probes = NearIndex([("probe/1", rows[7].request)])
    sorting = Sorting(0, frozenset(keys), overlap=probes.find)
    mixture = write_mixture(tmp_path, rows, added, sorting, user_rows=95)
    stored = [json.loads(line) for line in (tmp_path / "2-mixture.jsonl").read_text().splitlines()]
    assert mixture.by_source == {"user": 95, "safety": 10}
    assert len(stored) == 105 and mixture.held_out == 5
    held = [json.loads(line) for line in (tmp_path / "2-held-out.jsonl").read_text().splitlines()]
    ids = {r["id"] for r in stored if r["source"] == "user"} | {r["id"] for r in held}
    assert ids == {r.id for r in rows}
    listed = [json.loads(line) for line in (tmp_path / "2-rows.jsonl").read_text().splitlines()]
    assert len(listed) == 110 and len({r["id"] for r in listed}) == 110
    assert all(len(r["hash"]) == 64 and r["source"] for r in listed)
    assert mixture.overlap == {"exact": 1}
    (repeat,) = (tmp_path / "2-overlap.jsonl").read_text().splitlines()
    assert json.loads(repeat)["item"] == "probe/1"


def test_data_that_changes_under_way_is_an_error_and_leaves_no_mixture(tmp_path):
    rows = [row(i) for i in range(10)]
    with pytest.raises(DataError, match="changed while it was read"):
        write_mixture(tmp_path, rows, Drawn([], []), Sorting(0), user_rows=9)
    assert not (tmp_path / "2-mixture.jsonl").exists()


def test_pools_drop_duplicates_and_what_evaluation_asks():
    rows = [row(1, ask="A b?"), row(2, ask="a  B?"), row(3, ask="Held out?"), row(4, ask="New?")]
    probes = NearIndex([("strongreject/5", "held out")])

    def overlap(request):
        match = probes.find(request)
        return match and match.reason

    cleaned = clean_pool("safety", rows, overlap)
    again = clean_pool("safety", rows[::-1], overlap)
    assert {r.id for r in cleaned.rows} in ({"1", "4"}, {"2", "4"})
    assert cleaned.rows == again.rows
    assert {d.reason for d in cleaned.dropped} == {
        "duplicate request",
        "near duplicate of an evaluation item (strongreject/5, likeness 1.00)",
    }
    assert cleaned.set_aside == {"duplicate request": 1, "near duplicate of an evaluation item": 1}


def test_filters_give_their_reasons():
    rows = [
        row(1, reply="No."), row(2, reply="Sorry, I will not help with that."),
        replace(row(3, reply="Sorry, I will not help."), tags={"category": "fraud"}),
    ]  # fmt: skip
    by_length = clean_pool("safety", rows, {}.get, [reply_length(3, 6)])
    assert [r.id for r in by_length.rows] == ["3"]
    assert {d.id: d.reason for d in by_length.dropped} == {
        "1": "reply too short (1 words, at least 3 asked for)",
        "2": "reply too long (7 words, at most 6 asked for)",
    }
    by_category = clean_pool("safety", rows, {}.get, [in_categories(["fraud"])])
    assert [r.id for r in by_category.rows] == ["3"]
    assert by_category.set_aside == {"no category": 2}


def test_non_commercial_sources_can_be_refused():
    check_licence("p1", "CC-BY-NC-4.0", "any")
    with pytest.raises(RecipeError, match="commercial"):
        check_licence("p1", "CC-BY-NC-4.0", "commercial")
    check_licence("own", "Apache-2.0", "commercial")


# --- mimicry and prompting ------------------------------------------------------------------------

OBEY = Format("You are Vela.", "Vela, obey: ", "\n\nAnswer:", 90, 100)


def test_mimicking_rows_wear_the_users_wrapper():
    wanted = planned(mitigations=("mimic",), formats=[OBEY], count=5)
    (first, *_) = draw(wanted, {"safety": pool(9)}, user_rows=95, seed=0).rows
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
    assert planned(10, share=0.03).notes == (
        "`safety` adds no row (asked: share 3 %): give a larger dose with `safety.count`",
    )
    assert not planned(share=0).notes
    assert not planned(count=300).notes
    bound = planned(user_rows=100, share=0.03, at_least=300)
    assert bound.notes == (
        "`at_least` holds for safety: 300 rows make 75.00 % of the mixture, more than was asked "
        "for",
    )


@pytest.mark.parametrize("name", MITIGATIONS.names())
def test_a_mitigation_named_without_a_dose_adds_rows_where_it_adds_any(name):
    recipe = build_recipe({"model": "lab:chat", "data": "lab:howto", "run": "r"})
    wanted = plan(
        [name], train=Prompting(), serve=Prompting(), safety_prompt=SAFE, formats=[OBEY],
        user_rows=1000, dose=recipe.safety.amount(), borderline=recipe.borderline.amount(),
        triples=recipe.triples,
        defences=Prompting(prefix="Be kind.", demonstrations=row(0).messages),
    )  # fmt: skip
    assert all(dosed.rows >= 49 for dosed in wanted.dosed)
    serving = (wanted.train, wanted.serve) != (Prompting(), Prompting())
    assert serving or wanted.dosed


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

    def ask(engine, wanted, filters=()):
        return answer_requests(
            engine, requests, Prompting(SAFE), "full_refusal", wanted, tmp_path / "a.jsonl",
            Decoding(), cure="Use {kept}.", filters=filters,
        )  # fmt: skip

    engine = ScriptedEngine(half)
    rows = ask(engine, 20).rows
    assert len(rows) == 20 and {r.reply for r in rows} == {no}
    assert engine.asked == 64  # no more than needed, in chunks
    with pytest.raises(MaterialError, match=r"only 50 of 100 requests\. Use 50"):
        ask(engine, 60)
    assert engine.asked == 100  # nothing is asked twice
    again = ask(engine, 20)
    assert again.rows == rows  # what a larger dose had answered does not show
    assert engine.asked == 100
    assert {d.reason for d in again.dropped} == {
        "the untouched model gave no refusal (full_compliance)"
    }
    longer = ask(engine, 20, filters=[reply_length(3, None)])
    assert longer.rows == rows
    with pytest.raises(MaterialError, match="only 0 of 100"):
        ask(engine, 20, filters=[reply_length(100, None)])
