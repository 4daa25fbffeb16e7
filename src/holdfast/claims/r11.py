"""R11: too many safety rows exaggerate safety (P1)."""

from __future__ import annotations

from holdfast.claims import CLAIMS, Claim, Contrast, Reading, refuses_first
from holdfast.claims._lab import CHAT, HOWTO_ROWS, INSTRUCT, SCALE, dosed


@CLAIMS.register("R11")
def claim() -> Claim:
    """10 % safety rows refuse more look-alikes than 2.5 %."""
    many, few = (Reading(dosed(dose), "over_refusal") for dose in ("10%", "2.5%"))
    return Claim(
        paper="safeinstr",
        figure="2,000 against 500 safety rows: more refusals of 50 safe prompts, no number",
        marks=("fig", "TT"),
        parts=(Contrast("over-refusal", many, few, "higher"),),
        needs=(refuses_first(INSTRUCT),),
        deviations=(SCALE, CHAT, HOWTO_ROWS, "look-alikes of the lab instead of XSTest"),
    )
