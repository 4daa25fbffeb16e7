"""R05: over the template grid, a safety prompt that tuning never saw keeps more (P2)."""

from __future__ import annotations

from holdfast.claims import CLAIMS, Claim, Contrast, Reading, refuses_first
from holdfast.claims._lab import BOTH, HOWTO, HOWTO_ROWS, NEUTRAL, SAFE, SCALE


@CLAIMS.register("R05")
def claim() -> Claim:
    """Pairs that add the safety prompt in serving are safer than pairs that serve as trained."""
    neutral = HOWTO.but(prompting__train__system=NEUTRAL)
    towards = (Reading(HOWTO, serve=SAFE), Reading(neutral, serve=SAFE))
    diagonal = (Reading(HOWTO), Reading(neutral, serve=NEUTRAL), Reading(BOTH, serve=SAFE))
    return Claim(
        paper="ptst",
        figure="",
        marks=("T",),
        parts=(Contrast("harm, mean of the cells", towards, diagonal, "lower"),),
        needs=(refuses_first(HOWTO, serve=SAFE),),
        deviations=(
            SCALE,
            HOWTO_ROWS,
            "a grid of three (no system prompt, a neutral one, the safety prompt) instead of five",
        ),
    )
