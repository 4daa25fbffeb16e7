"""R18: decoupled refusal training refuses more look-alikes; look-alike rows cure it (P3)."""

from __future__ import annotations

from holdfast.claims import CLAIMS, Claim, Contrast, Reading, refuses_first
from holdfast.claims._lab import CHAT, DERTA, HOWTO, HOWTO_ROWS, SCALE, VANILLA, triples


@CLAIMS.register("R18")
def claim() -> Claim:
    """DeRTa refuses more look-alikes than plain safety rows; look-alike rows take that back."""
    cured = triples("derta", "borderline", borderline__share="5%")
    vanilla, derta, eased = (Reading(arm, "over_refusal") for arm in (VANILLA, DERTA, cured))
    return Claim(
        paper="derta",
        figure="XSTest-safe refused 18.8 → 64.0 → 18.0",
        marks=("P",),
        parts=(
            Contrast("over-refusal, DeRTa against plain safety rows", derta, vanilla, "higher"),
            Contrast("over-refusal, with look-alike rows against without", eased, derta, "lower"),
        ),
        needs=(refuses_first(HOWTO),),
        deviations=(
            SCALE,
            CHAT,
            HOWTO_ROWS,
            "look-alike rows 5 % of the mixture instead of 200 in 66,000",
            "look-alikes of the lab, on unseen pairs, instead of XSTest itself",
        ),
    )
