"""R10: harm falls with the dose of safety rows, and most of it at once (P1)."""

from __future__ import annotations

from holdfast.claims import CLAIMS, Claim, Reading, Trend, refuses_first
from holdfast.claims._lab import CHAT, HOWTO_ROWS, INSTRUCT, SCALE, dosed


@CLAIMS.register("R10")
def claim() -> Claim:
    """Harmful compliance falls as the dose of safety rows rises."""
    doses = ("0.5%", "2.5%", "10%")
    curve = (Reading(INSTRUCT), *(Reading(dosed(dose)) for dose in doses))
    return Claim(
        paper="safeinstr",
        figure="0 to 2,000 safety rows to 20,000: falling and saturating, no number",
        marks=("fig", "TT"),
        parts=(Trend("harm", curve, "falling", ("none", *doses)),),
        needs=(refuses_first(INSTRUCT),),
        deviations=(SCALE, CHAT, f"{HOWTO_ROWS}; the ratios of 0, 100, 500 and 2,000 rows"),
    )
