"""R15: transition rows add what prefix rows leave open (P3)."""

from __future__ import annotations

from holdfast.claims import CLAIMS, Claim, Contrast, Reading, refuses_first
from holdfast.claims._lab import CHAT, DERTA, HOWTO, HOWTO_ROWS, PREFIX, SCALE


@CLAIMS.register("R15")
def claim() -> Claim:
    """Transition rows beside prefix rows lower harm further, in code and in begun replies."""
    parts = tuple(
        Contrast(
            f"harm, {attack}",
            Reading(DERTA, attacks=(attack,)),
            Reading(PREFIX, attacks=(attack,)),
            "lower",
        )
        for attack in ("code", "prefill")
    )
    return Claim(
        paper="derta",
        figure="code 88.0 → 28.0, completing 25.0 → 5.0 (70B)",
        marks=("P",),
        parts=parts,
        needs=(refuses_first(HOWTO),),
        deviations=(
            SCALE,
            CHAT,
            HOWTO_ROWS,
            "equal rows in both arms: transition rows replace half of the prefix rows",
        ),
    )
