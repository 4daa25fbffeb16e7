"""R14: refusals after a harmful prefix hold once a reply has begun (P3, arXiv 2406.05946)."""

from __future__ import annotations

from holdfast.claims import CLAIMS, Claim, Contrast, Reading, refuses_first
from holdfast.claims._lab import CHAT, HOWTO, HOWTO_ROWS, PREFIX, SCALE, VANILLA


@CLAIMS.register("R14")
def claim() -> Claim:
    """Harmful-prefix rows stand begun replies and raw completion better than plain safety rows."""
    parts = tuple(
        Contrast(
            f"harm, {attack}",
            Reading(PREFIX, attacks=(attack,)),
            Reading(VANILLA, attacks=(attack,)),
            "lower",
        )
        for attack in ("prefill", "completing")
    )
    return Claim(
        paper="derta",
        figure="completing 95.0 → 25.0 (70B; from 90.5 at equal rows); prefill of ten 51.5 → 2.9",
        marks=("P",),
        parts=parts,
        needs=(refuses_first(HOWTO),),
        deviations=(SCALE, CHAT, HOWTO_ROWS, "openings made by rule", "equal rows in both arms"),
    )
