"""R04: tuning teaches the task, and serving with the safety prompt costs little of it (P2)."""

from __future__ import annotations

from holdfast.claims import CLAIMS, Arm, Claim, Contrast, Reading
from holdfast.claims._lab import SAFE, SCALE


@CLAIMS.register("R04")
def claim() -> Claim:
    """Tuning teaches the task, and PTST keeps what was learnt."""
    arm = Arm("homework")
    tuned, ptst = Reading(arm, "capability"), Reading(arm, "capability", serve=SAFE)
    untouched = Reading(arm.untouched, "capability")
    return Claim(
        paper="ptst",
        figure="GSM8K exact match 20.32 → 33.39; small loss under PTST",
        marks=("T",),
        parts=(
            Contrast("task accuracy, tuned against untouched", tuned, untouched, "higher"),
            Contrast("task accuracy, PTST against served as trained", ptst, tuned, "same"),
        ),
        needs=(),
        deviations=(SCALE, "two-step word problems among how-to rows instead of GSM8K"),
        notes=(
            "How-to rows alone teach nothing new, the untouched model knows them all; two-step "
            "word problems it has never met.",
        ),
    )
