"""The shelf of judges: batches of attempts in, one verdict each out.

A judge never raises on what a model wrote; what it cannot read is `unscored` with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from holdfast.registry import Shelf
from holdfast.types import Attempt, Expects, Verdict


class Judge(Protocol):
    """Reads answers."""

    name: str
    version: str
    """Changes whenever the same answer could get another verdict."""
    sides: frozenset[Expects]
    """Which items' answers it can judge."""
    sees_harm: bool
    """Whether `full_compliance` means harmful specifics were given. An offline judge that sees
    only that the request was not refused reports *compliance*, never harm."""

    def judge(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        """One verdict per attempt, in order."""


JUDGES: Shelf[Callable[..., Judge]] = Shelf("judges")


def judge(name: str, settings: Mapping[str, Any] | None = None) -> Judge:
    """Build a judge from the shelf with its settings."""
    return JUDGES.get(name)(**(settings or {}))
