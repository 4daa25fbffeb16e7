"""R-null-A: nothing differs but the seeds."""

from __future__ import annotations

from dataclasses import replace

from holdfast.claims import CLAIMS, Claim, Contrast, Reading
from holdfast.claims._lab import HOWTO


@CLAIMS.register("R-null-A")
def claim() -> Claim:
    """The same configuration with other seeds does not differ."""
    other = replace(HOWTO, seeds_from=1000)
    return Claim(
        paper="control",
        figure="",
        marks=(),
        parts=(Contrast("harm", Reading(HOWTO), Reading(other), "different"),),
        needs=(),
        passes=("inconclusive",),
    )
