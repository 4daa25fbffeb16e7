"""Mixing: how many rows of each kind, exactly; and which, nested in the dose.

Shares are of the final training set, so that several shares have to be solved together:
with U user rows, fixed counts c_j and shares s_i of the total N,  N = (U + Σ c_j) / (1 - Σ s_i).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.errors import RecipeError
from holdfast.mitigations import Request
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

    def to_json(self) -> dict[str, Any]:
        """All three ways to say the dose."""
        return {
            "source": self.source,
            "pool": self.pool,
            "count": self.rows,
            "share": round(self.share, 6),
            "ratio": round(self.ratio, 6),
        }


def solve(user_rows: int, requests: Sequence[Request]) -> list[Dosed]:
    """Row counts of all requests together, each rounded to the nearest row.

    Raises:
        RecipeError: shares that add up to the whole set or more.
    """
    counts = _solve(user_rows, requests, [None] * len(requests))
    low = [i for i, r in enumerate(requests) if counts[i] < r.at_least]
    if low:
        # A minimum that binds is a fixed count; the other shares see it.
        fixed = [r.at_least if i in low else None for i, r in enumerate(requests)]
        counts = _solve(user_rows, requests, fixed)
    total = user_rows + sum(counts)
    return [
        Dosed(r.source, r.pool, n, n / total if total else 0.0, n / user_rows if user_rows else 0.0)
        for r, n in zip(requests, counts, strict=True)
    ]


def _solve(user_rows: int, requests: Sequence[Request], fixed: Sequence[int | None]) -> list[int]:
    counts = [_fixed_count(user_rows, r, f) for r, f in zip(requests, fixed, strict=True)]
    shares = [r.share or 0.0 for r, n in zip(requests, counts, strict=True) if n is None]
    if sum(shares) >= 1:
        raise RecipeError(
            f"The shares of the mixture add up to {100 * sum(shares):.0f} %, which leaves no room "
            "for the user's rows. Ask for less than 100 % together."
        )
    total = (user_rows + sum(n or 0 for n in counts)) / (1 - sum(shares))
    return [
        round((r.share or 0.0) * total) if n is None else n
        for r, n in zip(requests, counts, strict=True)
    ]


def _fixed_count(user_rows: int, request: Request, fixed: int | None) -> int | None:
    if fixed is not None:
        return fixed
    if request.count is not None:
        return request.count
    if request.ratio is not None:
        return round(request.ratio * user_rows)
    return None if request.share is not None else 0


def check_supply(
    dosed: Sequence[Dosed], supply: Mapping[str, int], user_rows: int, *, repeat: Collection[str]
) -> None:
    """Check that the pools hold enough rows.

    Raises:
        RecipeError: they do not; names the largest dose that can be reached.
    """
    for pool in sorted({d.pool for d in dosed}):
        wanted = sum(d.rows for d in dosed if d.pool == pool)
        have = supply.get(pool, 0)
        if wanted <= have or (pool in repeat and have):
            continue
        others = sum(d.rows for d in dosed if d.pool != pool)
        largest = have / (user_rows + others + have) if have else 0.0
        raise RecipeError(
            f"The mixture asks for {wanted:,} {pool} rows, but there are {have:,}. The largest "
            f"share that can be reached is {100 * largest:.2f} % (`{pool}.count: {have}`). Ask for "
            f"less, add rows to the source, or allow repetition with `{pool}.repeat: true`."
        )


def ordered(pool: Iterable[Conversation], seed: int) -> list[Conversation]:
    """The pool in an order that depends on seed and content only.

    A dose is the head of this order, so a smaller dose is a subset of a larger one, whatever order
    the source came in.
    """
    return sorted(pool, key=lambda row: _rank(row, seed))


def _rank(row: Conversation, seed: int) -> bytes:
    text = "\0".join([str(seed), *(m.content for m in row.messages)])
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def head(rows: Sequence[Conversation], start: int, count: int) -> list[Conversation]:
    """`count` rows from `start` on, going round where repetition was allowed."""
    return [rows[(start + i) % len(rows)] for i in range(count)] if rows else []
