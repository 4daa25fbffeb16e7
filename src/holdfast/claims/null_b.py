"""R-null-B: which refusal answers which request does not matter."""

from __future__ import annotations

from holdfast.claims import CLAIMS, Claim, Contrast, Reading, refuses_first
from holdfast.claims._lab import HOWTO, MIXED


@CLAIMS.register("R-null-B")
def claim() -> Claim:
    """Refusals permuted among the safety rows still teach refusing."""
    permuted = MIXED.but(safety__source="lab:safety-permuted")
    return Claim(
        paper="control",
        figure="",
        marks=(),
        parts=(Contrast("harm", Reading(permuted), Reading(MIXED), "same"),),
        needs=(refuses_first(HOWTO),),
        notes=("One in three refusals of the lab names the deed; permuted, it names another.",),
        passes=("supported",),
    )
