"""For random sizes, doses and seeds: exact, nested, stable, and every user row kept."""

from __future__ import annotations

import random
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import RecipeError
from holdfast.mitigations import Request
from holdfast.rendering.prompting import Prompting
from holdfast.rows.mixing import deal, ordered, solve, split_validation
from holdfast.rows.pools import clean_pool
from holdfast.stages.prepare import HoldOut, Sorting, draw, plan, write_mixture
from holdfast.types import Conversation, Message

HUNDREDTHS = st.integers(0, 30).map(lambda percent: percent / 100)


def row(i, ask, reply="Do this.", source="user"):
    turns = (Message.of("user", ask), Message.of("assistant", reply))
    return Conversation(str(i), turns, source)


def user_rows(n, copies):
    """`n` rows, each `copies`-th of which asks what the one before it asked."""
    return [row(i, f"question {i - (copies > 1 and i % copies == 0)}", f"{i}") for i in range(n)]


def pool(n, shift, seed, name="safety"):
    """The same `n` rows in another order, numbered as they stand in the file."""
    asks = [f"{name} request {i}" for i in range(n)]
    random.Random(shift).shuffle(asks)
    rows = (row(number, ask, f"Sorry, no {ask}.") for number, ask in enumerate(asks))
    made = clean_pool(name, rows, lambda request: None)
    made.rows = ordered(made.rows, seed)
    return made


def planned(users, mitigations, dose, borderline):
    return plan(
        mitigations, train=Prompting(), serve=Prompting(), safety_prompt="", formats=(),
        user_rows=users, dose=dose, borderline=borderline,
    )  # fmt: skip


def said(rows):
    """What rows say, whatever they are called and wherever they came from."""
    return sorted((r.source, r.request, r.reply) for r in rows)


# --- how many -------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    user=st.integers(1, 20_000),
    shares=st.lists(HUNDREDTHS, min_size=1, max_size=3),
    count=st.integers(0, 500),
    ratio=HUNDREDTHS,
)
def test_doses_are_exact_to_the_row(user, shares, count, ratio):
    requests = [Request(str(i), "safety", share=s) for i, s in enumerate(shares)]
    requests += [Request("c", "safety", count=count), Request("r", "safety", ratio=ratio)]
    dosed = solve(user, requests)
    assert dosed[-2].rows == count
    assert abs(dosed[-1].rows - Fraction(str(ratio)) * user) <= Fraction(1, 2)
    # The shares are of one total; rounded rows are the nearest to it.
    exact = [Fraction(str(s)) for s in shares]
    total = (user + count + dosed[-1].rows) / (1 - sum(exact))
    for share, d in zip(exact, dosed, strict=False):
        assert abs(d.rows - share * total) <= Fraction(1, 2)
    reached = user + sum(d.rows for d in dosed)
    assert all(d.share == d.rows / reached and d.ratio == d.rows / user for d in dosed)


@settings(max_examples=100, deadline=None)
@given(
    user=st.integers(1, 3000),
    asked=st.lists(st.tuples(HUNDREDTHS, st.integers(0, 400)), min_size=1, max_size=3),
)
def test_minimums_are_kept_and_no_share_falls_short(user, asked):
    requests = [Request(str(i), "safety", share=s, at_least=n) for i, (s, n) in enumerate(asked)]
    dosed = solve(user, requests)
    total = user + sum(d.rows for d in dosed)
    for (share, least), d in zip(asked, dosed, strict=True):
        assert d.rows >= least
        assert d.rows >= share * total - 2
        assert d.rows == least or abs(d.rows - share * total) <= 2


@settings(max_examples=100, deadline=None)
@given(
    user=st.integers(2, 5000),
    share=HUNDREDTHS,
    count=st.integers(0, 300),
    asked=st.one_of(st.integers(1, 400), HUNDREDTHS),
)
def test_the_validation_split_is_exact_and_leaves_the_dose_alone(user, share, count, asked):
    requests = [Request("s", "safety", share=share), Request("b", "borderline", count=count)]
    try:
        split = split_validation(user, requests, asked)
    except RecipeError:
        assert asked >= 1  # a share always leaves rows to train on
        return
    whole = user + sum(d.rows for d in solve(user, requests))
    wanted = asked if asked >= 1 else Fraction(str(asked)) * whole
    trained = [d.rows for d in solve(user - split.user, requests)]
    if any(trained):
        assert abs(split.total - wanted) <= Fraction(1, 2)
    for rows, weight in zip(split.added, trained, strict=True):
        assert abs(rows - Fraction(sum(split.added) * weight, sum(trained) or 1)) < 1


# --- which ----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 60),
    small=st.tuples(st.integers(0, 20), st.integers(0, 20)),
    more=st.tuples(st.integers(0, 20), st.integers(0, 20)),
    repeat=st.booleans(),
)
def test_hands_are_exact_disjoint_and_nested(size, small, more, repeat):
    rows = pool(size, 0, 0).rows
    large = tuple(a + b for a, b in zip(small, more, strict=True))
    if sum(large) > size and not repeat:
        return
    dealt, bigger = deal(rows, small), deal(rows, large)
    assert [len(hand) for hand in dealt] == list(small)
    assert [len(hand) for hand in bigger] == list(large)
    if sum(large) <= size:
        assert len({r.id for hand in bigger for r in hand}) == sum(large)
        for less, greater in zip(dealt, bigger, strict=True):
            assert {r.id for r in less} <= {r.id for r in greater}
    else:
        times = [sum(r is one for hand in bigger for r in hand) for one in rows]
        assert max(times) - min(times) <= 1


@settings(max_examples=15, deadline=None)
@given(
    users=st.integers(1, 80),
    copies=st.integers(1, 4),
    hold=st.integers(0, 10),
    percent=st.integers(0, 30),
    more=st.integers(0, 20),
    borderline=st.integers(0, 10),
    seed=st.integers(0, 3),
    shift=st.integers(1, 5),
    data=st.data(),
)
def test_the_mixture(  # exact, nested, stable, whole
    tmp_path_factory, users, copies, hold, percent, more, borderline, seed, shift, data
):
    rows = user_rows(users, copies)
    shuffled = data.draw(st.permutations(rows))
    results = []
    for order, pool_order, share in (
        (rows, 0, percent), (shuffled, shift, percent), (rows, 0, percent + more)
    ):  # fmt: skip
        keys = HoldOut(seed)
        for r in order:
            keys.see(r)
        held = keys.choose(min(hold, users // 4))
        left = users - sum(held.values())
        if not left:
            return
        wanted = planned(
            left, ("safety_mix", "borderline"), {"share": share / 100}, {"count": borderline}
        )
        pools = {
            "safety": pool(400, pool_order, seed),
            "borderline": pool(20, pool_order, seed, "borderline"),
        }
        drawn = draw(wanted, pools, user_rows=left, seed=seed)
        folder = tmp_path_factory.mktemp("mixture")
        sorting = Sorting(seed, frozenset(held))
        mixture = write_mixture(folder, order, drawn, sorting, user_rows=left)
        results.append((wanted, mixture, drawn.rows, read(folder)))
    (wanted, mixture, added, mixed), (_, _, _, reordered), (_, _, _, larger) = results

    # exact: what was planned is what stands in the file
    for dosed in wanted.dosed:
        assert sum(r.source == dosed.source for r in mixed) == dosed.rows
    assert mixture.total == len(mixed)
    # stable: neither the order of the user's rows nor that of the pools matters
    assert said(reordered) == said(mixed)
    assert [r.id for r in added] == [r.id for r in results[1][2]]
    # nested: the smaller dose's rows are among those of the larger
    safety = {r.id for r in mixed if r.source == "safety"}
    assert safety <= {r.id for r in larger if r.source == "safety"}
    # whole: every user row is there once, but for held-out requests
    mine = [r for r in mixed if r.source == "user"]
    assert len({r.id for r in mine}) == len(mine) == users - mixture.held_out - mixture.dropped
    assert [r for r in rows if r.id in {m.id for m in mine}] == mine


def read(folder):
    import json

    lines = (folder / "2-mixture.jsonl").read_text().splitlines()
    return [Conversation.from_json(json.loads(line)) for line in lines]
