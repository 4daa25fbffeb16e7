"""Pools: the rows that mitigations draw from, read, cleaned, and kept apart from the probes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from holdfast.errors import RecipeError
from holdfast.text import normalise
from holdfast.types import Conversation, Dropped


@dataclass(slots=True)
class Pool:
    """Rows to draw from, and what was set aside on the way."""

    name: str
    rows: list[Conversation] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    origin: str = ""
    """Where the rows come from, as said in the manifest."""
    licence: str = ""


def clean_pool(
    name: str, rows: Iterable[Conversation], held_out: Callable[[str], str | None]
) -> Pool:
    """Rows without duplicates and without anything that is also asked in evaluation.

    Args:
        name: what the rows are called in the mixture.
        rows: candidates.
        held_out: says in which evaluation set a request occurs, or None.
    """
    pool = Pool(name)
    seen: set[str] = set()
    for row in rows:
        request = normalise(row.request)
        where = held_out(request)
        if where is not None:
            pool.dropped.append(Dropped(row.id, name, f"also asked in evaluation ({where})"))
        elif request in seen:
            pool.dropped.append(Dropped(row.id, name, "duplicate request"))
        else:
            seen.add(request)
            pool.rows.append(replace(row, source=name))
    return pool


def check_licence(name: str, licence: str, allowed: str) -> None:
    """Refuse a non-commercial source where the recipe asks for commercial use.

    Raises:
        RecipeError: the source may not be used.
    """
    if allowed == "commercial" and "NC" in licence.upper().split("-"):
        raise RecipeError(
            f"{name} is licensed {licence}, which `licence: commercial` refuses. Use "
            "`safety.source: self` or rows of your own."
        )
