"""R16: decoupled refusal training stands attacks that plain safety rows do not (P3)."""

from __future__ import annotations

from holdfast.claims import CLAIMS, Claim, Contrast, Reading, refuses_first
from holdfast.claims._lab import CHAT, DERTA, HOWTO, HOWTO_ROWS, SCALE, VANILLA


@CLAIMS.register("R16")
def claim() -> Claim:
    """DeRTa lowers harm, the mean over the attacks, against plain safety rows."""
    ran = ("task_disguised", "code", "self_cipher", "prefill", "completing")
    derta, vanilla = (Reading(arm, attacks=ran) for arm in (DERTA, VANILLA))
    return Claim(
        paper="derta",
        figure="mean of six attacks 70.6 → 8.8 (70B); completing 93 → 6 (8B)",
        marks=("P", "M"),
        parts=(Contrast("harm, mean of the attacks", derta, vanilla, "lower"),),
        needs=(refuses_first(HOWTO),),
        deviations=(
            SCALE,
            CHAT,
            HOWTO_ROWS,
            f"five attacks ({', '.join(ran)}); PAIR, AutoDAN and JailbreakChat did not run",
        ),
    )
