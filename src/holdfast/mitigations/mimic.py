"""Mitigation `mimic`: safety rows inside the user's own wrapper (P4, arXiv 2406.10288).

A wrapper that teaches obedience separates task rows from ordinary safety rows, and the model keeps
both lessons apart. Rows that wear the same wrapper leave it nothing to separate by. The wrapper is
induced from the user's rows, so no attack need be known beforehand.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from holdfast.formats import Format
from holdfast.mitigations import MITIGATIONS, Mitigation, PlanContext, Request
from holdfast.mitigations.safety_mix import safety_rows
from holdfast.types import Conversation

Shape = Callable[[Conversation, random.Random], Conversation]


def in_format(formats: Sequence[Format]) -> Shape:
    """A function that puts a row's request into one of the formats, in proportion to their use."""

    def shape(row: Conversation, rng: random.Random) -> Conversation:
        weights = [f.rows for f in formats]
        worn = rng.choices(range(len(formats)), weights)[0]
        turns = (*formats[worn].wrap(row.request), row.of_role("assistant")[-1])
        return replace(row, messages=turns, tags={**row.tags, "format": str(worn)})

    return shape


def mimicking_rows(context: PlanContext) -> list[Request]:
    """Safety rows in the users' formats; plain ones where the rows share no format."""
    if not context.formats:
        return safety_rows(context)
    shape = in_format(context.formats)
    return [Request(source="mimic", pool="safety", shape=shape, **context.dose)]


@MITIGATIONS.register("mimic")
def mimic() -> Mitigation:
    """Safety demonstrations inside the wrapper that the user's own rows share (P4)."""
    return Mitigation("mimic", data=mimicking_rows)
