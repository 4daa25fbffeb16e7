"""Page's test: whether readings rise with the dose, the seeds being blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import permutations

MOST = 7
"""Doses whose orders are enumerated."""


def page_p(rows: Sequence[Sequence[float]]) -> float:
    """One-sided exact p-value that readings rise along each row.

    L is the sum over seeds and doses of the dose's place times the reading's rank within its seed;
    under the null every order of a seed's readings is as likely as any other. Equal readings share
    their mean rank, and the distribution is that of the ranks as they are. Falling readings are
    tested by their negatives.

    Args:
        rows: (seeds, doses) readings, the smallest dose first.

    Raises:
        ValueError: fewer than three doses or more than seven, rows of unequal length, or no row.

    Source: Page, J. Amer. Statist. Assoc. 58 (1963) 216-230.
    """
    doses = len(rows[0]) if rows else 0
    if not 3 <= doses <= MOST or any(len(row) != doses for row in rows):
        raise ValueError(f"expected rows of 3 to {MOST} readings each, got {rows!r}")
    ranked = [_ranks(row) for row in rows]
    seen = sum(_score(ranks) for ranks in ranked)
    total: dict[int, float] = {0: 1.0}
    for ranks in ranked:
        each = Counter(_score(order) for order in permutations(ranks))
        orders = sum(each.values())
        summed: dict[int, float] = {}
        for score, share in total.items():
            for more, times in each.items():
                summed[score + more] = summed.get(score + more, 0.0) + share * times / orders
        total = summed
    return min(1.0, sum(share for score, share in total.items() if score >= seen))


def _ranks(row: Sequence[float]) -> list[int]:
    """Twice the mid-ranks, so that they are whole."""
    return [2 * sum(x < y for x in row) + sum(x == y for x in row) + 1 for y in row]


def _score(ranks: Sequence[int]) -> int:
    return sum(place * rank for place, rank in enumerate(ranks, start=1))
