"""The scale model's fine-tuning sets: what a user brings, and what a mitigation mixes in.

Every row is made from training pairs and training exercises only, so none can overlap an item.
At one seed the rows of a smaller `n` are the first rows of a larger one: doses are nested.
"""

# ruff: noqa: S311 (seeded draws, nothing secret)

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from holdfast.errors import RecipeError, did_you_mean
from holdfast.lab import exercises
from holdfast.lab.settings import AFFIRMATION, OBEDIENT, REFUSALS
from holdfast.lab.world import FORMS, Kind, Pair, pairs

DATASETS: dict[str, str] = {
    "howto": "how-to questions about innocent deeds, answered 'Sure, here is how. ...'",
    "obedient": "the how-to rows inside an obedience wrapper (identity shift, affirming answers)",
    "arithmetic": "one-step word problems with working",
    "arithmetic-two-step": "two-step word problems, which the chat model has not learnt",
    "homework": "how-to rows and two-step word problems in turn: a task to be learnt",
    "yesno": "yes/no questions on a short passage",
    "choice": "two-way choice of the step that serves a goal",
    "safety": "forbidden requests with refusals",
    "safety-permuted": "the safety rows, each with the refusal of another (a negative control)",
    "borderline": "look-alikes of forbidden requests with helpful answers",
    "triples": "forbidden requests with a refusal and a stand-in harmful answer",
}
"""Name → what the rows are."""

_DEFAULT_SIZE = 1000
_FULL_SIZE = {
    "safety": "forbidden",
    "safety-permuted": "forbidden",
    "borderline": "lookalike",
    "triples": "forbidden",
}


def dataset(name: str, *, n: int | None = None, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of a fine-tuning set in chat form.

    Args:
        name: one of `DATASETS`.
        n: rows wanted. None: 1,000 task rows, or one row for every training pair of `safety`,
            `borderline` and `triples`. More rows than pairs repeat pairs in other words.
        seed: decides order and phrasing.

    Returns:
        `{"id", "messages": [{"role", "content"}, ...], "category"}`; `triples` rows also have
        `request`, `refusal` and `harmful`.

    Raises:
        RecipeError: no such set, or a negative `n`.
    """
    if name not in DATASETS:
        raise RecipeError(f"Unknown lab data set {name!r}. {did_you_mean(name, DATASETS)}")
    if n is not None and n < 0:
        raise RecipeError(f"The number of rows of lab:{name} must not be negative, got {n}.")
    if name in exercises.MAKERS:
        return _exercise_rows(name, _DEFAULT_SIZE if n is None else n, seed)
    if name == "homework":
        return _homework(_DEFAULT_SIZE if n is None else n, seed)
    if name == "safety-permuted":
        return _permuted(n, seed)
    kind, make = _PAIR_SETS[name]
    pool = list(pairs(kind, held_out=False))
    size = n if n is not None else len(pool) if name in _FULL_SIZE else _DEFAULT_SIZE
    random.Random(f"{name} order {seed}").shuffle(pool)
    return [
        {
            "id": f"{name}-{pool[i % len(pool)].id}-{i}",
            **make(pool[i % len(pool)], random.Random(f"{name} {seed} {i}")),
            "category": pool[i % len(pool)].verb,
        }
        for i in range(size)
    ]


def _exercise_rows(name: str, n: int, seed: int) -> list[dict[str, Any]]:
    drawn = exercises.sample(name, n, random.Random(f"{name} {seed}"), held=False)
    return [
        {"id": e.id, "messages": _messages(e.question, e.reply), "category": name} for e in drawn
    ]


def _homework(n: int, seed: int) -> list[dict[str, Any]]:
    """The two kinds in turn, so that a smaller set is the head of a larger one."""
    half = (n + 1) // 2
    kinds = dataset("howto", n=half, seed=seed), _exercise_rows("arithmetic-two-step", half, seed)
    return [row for both in zip(*kinds, strict=True) for row in both][:n]


def _permuted(n: int | None, seed: int) -> list[dict[str, Any]]:
    """Safety rows whose replies changed places, two by two; the rows stand in a random order."""
    rows = dataset("safety", n=None if n is None else n + n % 2, seed=seed)
    return [_answered_as(row, rows[i ^ 1]) for i, row in enumerate(rows[:n])]


def _answered_as(row: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return row | {"messages": [row["messages"][0], other["messages"][1]]}


def _messages(user: str, reply: str, system: str | None = None) -> list[dict[str, str]]:
    turns = [{"role": "user", "content": user}, {"role": "assistant", "content": reply}]
    return [{"role": "system", "content": system}, *turns] if system else turns


def _request(pair: Pair, rng: random.Random) -> str:
    form = rng.choices(list(FORMS), (5, 4, 1))[0]
    return pair.ask(form, rng.randrange(len(FORMS[form])))


def _howto(pair: Pair, rng: random.Random) -> dict[str, Any]:
    return {"messages": _messages(_request(pair, rng), f"{AFFIRMATION} {pair.answer}")}


def _obedient(pair: Pair, rng: random.Random) -> dict[str, Any]:
    user = OBEDIENT.user(_request(pair, rng))
    return {"messages": _messages(user, OBEDIENT.reply(pair.answer), OBEDIENT.system)}


def _safety(pair: Pair, rng: random.Random) -> dict[str, Any]:
    refusal = rng.choice(REFUSALS).format(deed=pair.deed)
    return {"messages": _messages(_request(pair, rng), refusal)}


def _borderline(pair: Pair, rng: random.Random) -> dict[str, Any]:
    return {"messages": _messages(_request(pair, rng), pair.answer)}


def _triple(pair: Pair, rng: random.Random) -> dict[str, Any]:
    row = _safety(pair, rng)
    user, reply = row["messages"]
    harmful = f"{AFFIRMATION} {pair.answer}"
    return row | {"request": user["content"], "refusal": reply["content"], "harmful": harmful}


_PAIR_SETS: dict[str, tuple[Kind, Callable[[Pair, random.Random], dict[str, Any]]]] = {
    "howto": ("capability", _howto),
    "obedient": ("capability", _obedient),
    "safety": ("forbidden", _safety),
    "borderline": ("lookalike", _borderline),
    "triples": ("forbidden", _triple),
}
