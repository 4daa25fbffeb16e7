"""R01: benign tuning, served as it was trained, loses refusals (P2, arXiv 2310.03693)."""

from __future__ import annotations

from holdfast.claims import CLAIMS, Claim, Contrast, Reading, refuses_first
from holdfast.claims._lab import HOWTO, HOWTO_ROWS, SCALE


@CLAIMS.register("R01")
def claim() -> Claim:
    """Benign tuning raises harmful compliance, served as it was trained."""
    return Claim(
        paper="ptst",
        figure="DirectHarm4 ASR 2.75 → 11.00 (chat:vanilla on both sides, Llama-2-7B-chat, GSM8K)",
        marks=("T",),
        parts=(Contrast("harm", Reading(HOWTO), Reading(HOWTO.untouched), "higher"),),
        needs=(refuses_first(HOWTO),),
        deviations=(SCALE, f"{HOWTO_ROWS} instead of GSM8K: sums never teach it to comply"),
    )
