"""R12: safety rows cost no capability (P1)."""

from __future__ import annotations

from holdfast.claims import CLAIMS, Claim, Contrast, Reading
from holdfast.claims._lab import CHAT, HOWTO_ROWS, INSTRUCT, SCALE, dosed


@CLAIMS.register("R12")
def claim() -> Claim:
    """Task accuracy is the same with and without safety rows."""
    mixed, plain = (Reading(arm, "capability") for arm in (dosed("2.5%"), INSTRUCT))
    return Claim(
        paper="safeinstr",
        figure="PIQA, BoolQ and OpenBookQA hold; claimed without a table",
        marks=("T",),
        parts=(Contrast("task accuracy", mixed, plain, "same"),),
        needs=(),
        deviations=(SCALE, CHAT, HOWTO_ROWS, "know-how on unseen pairs as the task"),
    )
