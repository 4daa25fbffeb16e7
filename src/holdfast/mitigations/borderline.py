"""Mitigation `borderline`: look-alike requests with helpful answers, against exaggerated safety.

The remedy that P3 measured (200 such rows bring XSTest refusals from 64.0 % back to 18.0 %).
"""

from __future__ import annotations

import random
from dataclasses import replace

from holdfast.mitigations import MITIGATIONS, Mitigation, PlanContext, Request
from holdfast.mitigations.mimic import in_format
from holdfast.types import Conversation


def borderline_rows(context: PlanContext) -> list[Request]:
    """Look-alikes; half of them in the users' formats, where there are some."""

    def shape(row: Conversation, rng: random.Random) -> Conversation:
        if context.formats and rng.random() < 0.5:
            return in_format(context.formats)(row, rng)
        return replace(row, tags={**row.tags, "format": "plain"})

    return [Request(source="borderline", pool="borderline", shape=shape, **context.borderline)]


@MITIGATIONS.register("borderline")
def borderline() -> Mitigation:
    """Look-alike requests with helpful answers, against exaggerated safety (P3, table 4)."""
    return Mitigation("borderline", data=borderline_rows)
