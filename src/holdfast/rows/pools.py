"""Pools: the rows that mitigations draw from, read, filtered, and kept apart from the probes."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from holdfast.errors import RecipeError
from holdfast.text import normalise
from holdfast.types import Conversation, Dropped

Objection = Callable[[Conversation], str | None]
"""Says why a row is to be set aside, or None."""


@dataclass(slots=True)
class Pool:
    """Rows to draw from, and what was set aside on the way."""

    name: str
    rows: list[Conversation] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    origin: str = ""
    """Where the rows come from, as said in the manifest."""
    licence: str = ""

    @property
    def set_aside(self) -> dict[str, int]:
        """Reason → rows, particulars left out; commonest first."""
        kinds = Counter(row.reason.partition(" (")[0] for row in self.dropped)
        return dict(sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0])))


_sorted = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode


def row_hash(row: Conversation) -> str:
    """SHA-256 of what a row says and trains on (turns, losses, tools), hex; not of its id."""
    said = [[message.to_json() for message in row.messages], list(row.tools)]
    return hashlib.sha256(_sorted(said).encode("utf-8", "surrogatepass")).hexdigest()


def clean_pool(
    name: str,
    rows: Iterable[Conversation],
    overlap: Callable[[str], str | None],
    filters: Sequence[Objection] = (),
) -> Pool:
    """Rows that pass the filters, once each, and none that is also asked in evaluation.

    The rows kept are the same in whatever order the candidates come.

    Args:
        name: what the rows are called in the mixture.
        rows: candidates.
        overlap: says how a request repeats an evaluation set, or None.
        filters: further reasons to set a row aside; the first one counts.
    """
    pool = Pool(name)
    # Of rows that ask the same, the one with the smallest hash stays, wherever it stood.
    candidates = (replace(row, source=name) for row in sorted(rows, key=row_hash))
    objections = (*filters, lambda row: overlap(row.request))
    pool.rows = list(distinct(candidates, objections, pool.dropped.append))
    return pool


def distinct(
    rows: Iterable[Conversation],
    objections: Sequence[Objection],
    drop: Callable[[Dropped], None],
) -> Iterator[Conversation]:
    """Rows that nothing speaks against, the first of those that ask the same, one by one."""
    seen: set[str] = set()
    for row in rows:
        request = normalise(row.request)
        found = (reason for objects in objections if (reason := objects(row)) is not None)
        reason = "duplicate request" if request in seen else next(found, None)
        if reason is not None:
            drop(Dropped(row.id, row.source, reason))
        else:
            seen.add(request)
            yield row


# --- filters --------------------------------------------------------------------------------------


def in_categories(names: Collection[str]) -> Objection:
    """Only rows whose source puts them into one of these categories."""

    def check(row: Conversation) -> str | None:
        found = row.tags.get("category")
        if found in names:
            return None
        return f"category not asked for ({found!r})" if found else "no category"

    return check


def reply_length(fewest: int | None, most: int | None) -> Objection:
    """Only rows whose reply has at least `fewest` and at most `most` words."""

    def check(row: Conversation) -> str | None:
        size = len(row.reply.split())
        if fewest is not None and size < fewest:
            return f"reply too short ({size:,} words, at least {fewest:,} asked for)"
        if most is not None and size > most:
            return f"reply too long ({size:,} words, at most {most:,} asked for)"
        return None

    return check


# --- terms ----------------------------------------------------------------------------------------


def check_licence(name: str, licence: str, allowed: str) -> None:
    """Refuse a non-commercial source where the recipe asks for commercial use.

    Raises:
        RecipeError: the source may not be used.
    """
    if allowed == "commercial" and "NC" in licence.upper().split("-"):
        raise RecipeError(
            f"{name} is licensed {licence}, which `licence: commercial` refuses. Use rows of your "
            "own, or `safety.source: self` for safety rows."
        )
