"""R06: safety rows among the task rows keep refusals (P2)."""

from __future__ import annotations

from holdfast.claims import CLAIMS, Claim, Contrast, Reading, refuses_first
from holdfast.claims._lab import HOWTO, HOWTO_ROWS, MIXED, SCALE


@CLAIMS.register("R06")
def claim() -> Claim:
    """Safety rows in the mixture lower harmful compliance, to almost none."""
    return Claim(
        paper="ptst",
        figure="",
        marks=("TT",),
        parts=(Contrast("harm", Reading(MIXED), Reading(HOWTO), "lower"),),
        needs=(refuses_first(HOWTO),),
        deviations=(SCALE, HOWTO_ROWS, "safety rows 10 % of the user's rows instead of 33 %"),
    )
