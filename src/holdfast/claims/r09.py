"""R09: a few hundred safety rows make a model much safer (P1)."""

from __future__ import annotations

from holdfast.claims import CLAIMS, Claim, Contrast, Reading, refuses_first
from holdfast.claims._lab import CHAT, HOWTO_ROWS, INSTRUCT, SCALE, dosed


@CLAIMS.register("R09")
def claim() -> Claim:
    """2.5 % safety rows lower harmful compliance."""
    return Claim(
        paper="safeinstr",
        figure='500 safety rows to 20,000 ("about 3 %"): much safer, no number',
        marks=("fig", "TT"),
        parts=(Contrast("harm", Reading(dosed("2.5%")), Reading(INSTRUCT), "lower"),),
        needs=(refuses_first(INSTRUCT),),
        deviations=(SCALE, CHAT, f"{HOWTO_ROWS}; the same ratio, far fewer rows"),
    )
