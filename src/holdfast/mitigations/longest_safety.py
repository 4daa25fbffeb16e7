"""Mitigation `longest_safety`: the safety rows with the longest replies, as they are.

A baseline for `mimic` (P4 §5b P4.4): more safety text a row, in the wrong format.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.mitigations import MITIGATIONS, Mitigation, PlanContext, Request
from holdfast.types import Conversation


def longest_rows(context: PlanContext) -> list[Request]:
    """Safety rows at the recipe's dose, those with the longest replies first."""

    def longest(rows: Sequence[Conversation]) -> list[Conversation]:
        return sorted(rows, key=lambda row: -len(row.reply))

    return [Request(source="safety", pool="safety", prefer=longest, **context.dose)]


@MITIGATIONS.register("longest_safety")
def longest_safety() -> Mitigation:
    """The safety rows with the longest replies, as they are (a baseline of P4)."""
    return Mitigation("longest_safety", data=longest_rows)
