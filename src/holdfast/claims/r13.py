"""R13: safety rows put as commands carry over to commands, questions less so (P1)."""

from __future__ import annotations

from holdfast.claims import CLAIMS, Arm, Claim, Contrast, Reading, refuses_first
from holdfast.claims._lab import CHAT, HOWTO_ROWS, SCALE


@CLAIMS.register("R13")
def claim() -> Claim:
    """Safety rows put as instructions protect more from instructions than questions do."""
    plain = Arm("instructions", {"mitigations": ["safety_mix"], "safety.ratio": "0.5%"})
    commands, questions = (
        Reading(plain.but(safety__form=form)) for form in ("instruction", "question")
    )
    return Claim(
        paper="safeinstr",
        figure="Figure 6, no number",
        marks=("fig", "T"),
        parts=(Contrast("harm of instructions", commands, questions, "lower"),),
        needs=(refuses_first(Arm("instructions")),),
        deviations=(
            SCALE,
            CHAT,
            HOWTO_ROWS,
            "0.5 % safety rows: with more, nothing is left to differ in",
        ),
        notes=(
            "The lab's chat model was aligned on all forms of requests, so that a few safety rows "
            "of any form wake its refusals of all.",
        ),
    )
