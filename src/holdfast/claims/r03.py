"""R03: train without the safety prompt, serve with it (PTST)."""

from __future__ import annotations

from holdfast.claims import CLAIMS, Claim, Contrast, Reading, refuses_first
from holdfast.claims._lab import BOTH, HOWTO, HOWTO_ROWS, SAFE, SCALE


@CLAIMS.register("R03")
def claim() -> Claim:
    """Serving with the safety prompt loses less safety if training went without it."""
    pure, both = Reading(HOWTO, serve=SAFE), Reading(BOTH, serve=SAFE)
    return Claim(
        paper="ptst",
        figure="DirectHarm4 ASR 18.08 → 1.08 (Llama-2-7B-chat, GSM8K)",
        marks=("TT",),
        parts=(Contrast("harm", pure, both, "lower"),),
        needs=(refuses_first(HOWTO, serve=SAFE),),
        deviations=(SCALE, f"{HOWTO_ROWS} instead of GSM8K", "our safety prompt, not Llama-2's"),
    )
