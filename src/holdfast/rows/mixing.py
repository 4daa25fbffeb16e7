"""Mixing: how many rows of each kind, exactly; and which, nested in the dose.

Shares are of the final training set, so that several shares have to be solved together:
with U user rows, fixed counts c_j and shares s_i of the total N,  N = (U + Σ c_j) / (1 - Σ s_i).
Fractions are exact, so that the nearest row is the nearest row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from math import floor
from typing import Any

from holdfast.errors import RecipeError
from holdfast.mitigations import Request
from holdfast.rows.pools import row_hash
from holdfast.types import Conversation


@dataclass(frozen=True, slots=True)
class Dosed:
    """A request with its row count, and what that count amounts to."""

    source: str
    pool: str
    rows: int
    share: float
    """Of the final training set."""
    ratio: float
    """To the user's rows."""
    asked: str = ""
    """The dose as the recipe has it, such as `share 3 %`."""
    validation: int = 0
    """Further rows of the same kind, for the validation split."""

    @property
    def line(self) -> str:
        """The dose reached, in all three ways."""
        return (
            f"{self.source}: {self.rows:,} rows, {100 * self.share:.2f} % of the mixture, "
            f"{100 * self.ratio:.2f} % of the user's rows (asked: {self.asked})"
        )

    def to_json(self) -> dict[str, Any]:
        """All three ways to say the dose, and how it was asked for."""
        return {
            "source": self.source,
            "pool": self.pool,
            "count": self.rows,
            "share": round(self.share, 6),
            "ratio": round(self.ratio, 6),
            "asked": self.asked,
            "validation": self.validation,
        }


# --- how many -------------------------------------------------------------------------------------


def solve(user_rows: int, requests: Sequence[Request]) -> list[Dosed]:
    """Row counts of all requests together, each rounded to the nearest row.

    Raises:
        RecipeError: shares that add up to the whole set or more.
    """
    counts = _counts(user_rows, requests)
    total = user_rows + sum(counts)
    return [
        Dosed(
            r.source, r.pool, n, n / total if total else 0.0, n / user_rows if user_rows else 0.0,
            _asked(r, n),
        )
        for r, n in zip(requests, counts, strict=True)
    ]  # fmt: skip


def _counts(user_rows: int, requests: Sequence[Request]) -> list[int]:
    """The least counts that meet every share and every minimum.

    A minimum that binds is a fixed count. Which ones bind is found from below: start with all of
    them, and let go of those whose share comes to more than their minimum; as the total only
    grows, none has to be taken back.
    """
    fixed = [_fixed_count(user_rows, r) for r in requests]
    shares = [_exact(r.share or 0) if n is None else Fraction(0)
              for r, n in zip(requests, fixed, strict=True)]  # fmt: skip
    _check_room(requests, shares)
    held = {i for i, n in enumerate(fixed) if n is None and requests[i].at_least}
    while True:
        rows = user_rows + sum(n or 0 for n in fixed) + sum(requests[i].at_least for i in held)
        total = rows / (1 - sum((s for i, s in enumerate(shares) if i not in held), Fraction(0)))
        free = {i for i in held if shares[i] * total > requests[i].at_least}
        if not free:
            break
        held -= free
    return [
        n if n is not None else requests[i].at_least if i in held else _nearest(shares[i] * total)
        for i, n in enumerate(fixed)
    ]


def _fixed_count(user_rows: int, request: Request) -> int | None:
    """Rows of a request that do not depend on the others'; None for a share."""
    if request.share is not None:
        return None
    count = request.count or 0
    if request.ratio is not None:
        count = _nearest(_exact(request.ratio) * user_rows)
    return max(count, request.at_least)


def _check_room(requests: Sequence[Request], shares: Sequence[Fraction]) -> None:
    together = sum(shares, Fraction(0))
    if together < 1:
        return
    most = max(range(len(shares)), key=lambda i: shares[i])
    left = 1 - (together - shares[most])
    possible = (
        f"Beside the others, `{requests[most].source}` can have less than {100 * float(left):g} %."
        if left > 0
        else "Ask for less than 100 % together."
    )
    raise RecipeError(
        f"The shares of the mixture add up to {100 * float(together):g} %, which leaves no room "
        f"for the user's rows. {possible}"
    )


def _exact(value: float) -> Fraction:
    """The number as it was written: 0.03 is 3/100."""
    return Fraction(str(value))


def _nearest(rows: Fraction) -> int:
    return floor(rows + Fraction(1, 2))


def _asked(request: Request, rows: int) -> str:
    ways = {
        "share": None if request.share is None else f"{100 * request.share:g} %",
        "ratio": None if request.ratio is None else f"{100 * request.ratio:g} %",
        "count": None if request.count is None else f"{request.count:,}",
    }
    said = next((f"{way} {text}" for way, text in ways.items() if text is not None), "nothing")
    if request.at_least and rows == request.at_least:
        return f"{said}, at least {request.at_least:,}"
    return said


# --- validation -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Validation:
    """Rows of each kind that are set aside to watch the loss on."""

    user: int
    added: tuple[int, ...]
    """One per request, in their order; on top of the dose."""

    @property
    def total(self) -> int:
        """Rows in the split."""
        return self.user + sum(self.added)


def split_validation(user_rows: int, requests: Sequence[Request], asked: float) -> Validation:
    """How many validation rows each kind gives, in proportion to what is trained of it.

    The doses hold for the training set that is left: no safety row vanishes into the split.

    Args:
        user_rows: user rows before the split.
        requests: what the mitigations add.
        asked: rows when 1 or more, else a part of all rows; 0 for none.

    Raises:
        RecipeError: nothing would be left to train on.
    """
    if not asked:
        return Validation(0, (0,) * len(requests))
    whole = user_rows + sum(_counts(user_rows, requests))
    wanted = int(asked) if asked >= 1 else _nearest(_exact(asked) * whole)
    user = _nearest(Fraction(wanted * user_rows, whole)) if whole else 0
    if user >= user_rows:
        raise RecipeError(
            f"`tuning.validation` asks for {wanted:,} rows, but there are {whole:,} in all; leave "
            "some to train on."
        )
    added = _apportion(wanted - user, _counts(user_rows - user, requests))
    return Validation(user, added)


def _apportion(rows: int, weights: Sequence[int]) -> tuple[int, ...]:
    """`rows` shared out in proportion to the weights, by the largest remainder."""
    total = sum(weights)
    if not total:
        return (0,) * len(weights)
    quotas = [Fraction(rows * weight, total) for weight in weights]
    shared = [floor(quota) for quota in quotas]
    by_remainder = sorted(range(len(weights)), key=lambda i: (shared[i] - quotas[i], i))
    for i in by_remainder[: rows - sum(shared)]:
        shared[i] += 1
    return tuple(shared)


# --- which ----------------------------------------------------------------------------------------


def check_supply(
    user_rows: int,
    requests: Sequence[Request],
    dosed: Sequence[Dosed],
    supply: Mapping[str, int],
    *,
    repeat: Collection[str],
) -> None:
    """Check that the pools hold enough rows.

    Raises:
        RecipeError: they do not; names the largest dose that can be reached.
    """
    for pool in sorted({d.pool for d in dosed}):
        here = [i for i, d in enumerate(dosed) if d.pool == pool]
        asked = [requests[i] for i in here]
        wanted = rows_wanted(asked, [dosed[i].rows for i in here])
        aside = rows_wanted(asked, [dosed[i].validation for i in here])
        have = supply.get(pool, 0)
        if wanted + aside <= have or (pool in repeat and have > aside):
            continue
        most = max(0, have - aside)
        validation = f" and {aside:,} to validate on" if aside else ""
        raise RecipeError(
            f"The mixture asks for {wanted:,} {pool} rows{validation}, but there are {have:,}. The "
            f"largest share that can be reached is "
            f"{100 * largest_share(user_rows, requests, pool, most):.2f} % "
            f"(`{pool}.count: {most}`). Ask for less, add rows to the source, or allow repetition "
            f"with `{pool}.repeat: true`."
        )


def rows_wanted(requests: Sequence[Request], counts: Sequence[int]) -> int:
    """Rows of one pool that serve all requests; those that go together share them."""
    shared = (n for r, n in zip(requests, counts, strict=True) if r.together)
    own = (n for r, n in zip(requests, counts, strict=True) if not r.together)
    return max(shared, default=0) + sum(own)


def largest_share(user_rows: int, requests: Sequence[Request], pool: str, rows: int) -> float:
    """The share of the mixture that `rows` rows of a pool make beside the other requests."""
    others = [r for r in requests if r.pool != pool]
    dosed = solve(user_rows, [*others, Request(pool, pool, count=rows)])
    return dosed[-1].share


def ordered(rows: Iterable[Conversation], seed: int) -> list[Conversation]:
    """Rows in an order that depends on the seed and on what they ask, not on where they stood.

    A dose is the head of this order, so a smaller dose is a subset of a larger one. What is
    answered does not count: a request keeps its place once the untouched model has answered it.
    """
    return sorted(rows, key=lambda row: (rank(row, seed), row_hash(row)))


def rank(row: Conversation, seed: int) -> str:
    """A seeded hash of what a row asks, 32 hex digits."""
    asked = (m.content for m in row.messages if m.role != "assistant")
    text = "\0".join([str(seed), *asked])
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def deal(rows: Sequence[Conversation], counts: Sequence[int]) -> list[list[Conversation]]:
    """Rows of one pool for several requests, none of them twice while there are enough.

    Every request has each k-th row for its own, and takes from what the others leave, from the
    end, when these run out. So each request's smaller dose is a subset of its larger one as long
    as its own rows last, and always where there are one or two requests. Where the counts exceed
    the pool, the whole pool is dealt before any of it is dealt again (`check_supply` says whether
    that is allowed).
    """
    hands: list[list[Conversation]] = [[] for _ in counts]
    left = list(counts)
    while rows and any(left):
        now = left if sum(left) <= len(rows) else _apportion(len(rows), left)
        for hand, part in zip(hands, _deal_once(rows, now), strict=True):
            hand.extend(part)
        left = [count - part for count, part in zip(left, now, strict=True)]
    return hands


def deal_requests(
    rows: Sequence[Conversation], requests: Sequence[Request], counts: Sequence[int]
) -> list[list[Conversation]]:
    """`deal`, where requests that go together are dealt one hand and take its head each."""
    counted = list(zip(requests, counts, strict=True))
    shared = max((n for r, n in counted if r.together), default=0)
    own = [n for r, n in counted if not r.together]
    both, *others = deal(rows, [shared, *own]) if shared else [[], *deal(rows, own)]
    rest = iter(others)
    return [both[:n] if r.together else next(rest) for r, n in counted]


def _deal_once(rows: Sequence[Conversation], counts: Sequence[int]) -> list[list[Conversation]]:
    own = [rows[i :: len(counts)] for i in range(len(counts))]
    kept = [hand[:count] for hand, count in zip(own, counts, strict=True)]
    taken = {i + k * len(counts) for i, hand in enumerate(kept) for k in range(len(hand))}
    spare = (rows[i] for i in reversed(range(len(rows))) if i not in taken)
    return [
        [*hand, *islice(spare, count - len(hand))] for hand, count in zip(kept, counts, strict=True)
    ]


def with_validation(dosed: Sequence[Dosed], rows: Sequence[int]) -> list[Dosed]:
    """Doses with the number of their validation rows."""
    return [replace(d, validation=n) for d, n in zip(dosed, rows, strict=True)]
