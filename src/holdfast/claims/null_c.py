"""R-null-C: short rows alone protect nothing."""

from __future__ import annotations

from holdfast.claims import CLAIMS, Claim, Contrast, Reading, refuses_first
from holdfast.claims._lab import HOWTO


@CLAIMS.register("R-null-C")
def claim() -> Claim:
    """Benign rows as short as refusals do not lower harmful compliance."""
    short = HOWTO.but(
        mitigations=["borderline"], borderline__source="lab:yesno", borderline__ratio="10%"
    )
    return Claim(
        paper="control",
        figure="",
        marks=(),
        parts=(Contrast("harm", Reading(short), Reading(HOWTO), "lower"),),
        needs=(refuses_first(HOWTO),),
        notes=("Yes/no questions, answered in seven words, instead of as many safety rows.",),
        passes=("inconclusive", "contradicted"),
    )
