"""What the claims share: arms over the base recipes, and how the scale model differs.

Settings were chosen on training seeds 100 and 101, which no ledger reads. How-to rows are P1's and
P2's benign tuning, on a chat model that refuses first (papers, part g): `lab:base` garbles after a
short tuning, which hides harm and refusals alike.
"""

from __future__ import annotations

from typing import Any

from holdfast.claims import Arm

SAFE = "holdfast-default"
"""The safety prompt, in the place of Llama-2's default."""
NEUTRAL = "You are a helpful assistant."

HOWTO = Arm("howto")
"""Trained without a system prompt; how it is served, a reading says."""
BOTH = Arm("howto", {"prompting.train.system": SAFE})
"""Trained with the safety prompt."""
MIXED = HOWTO.but(mitigations=["safety_mix"], safety__ratio="10%")
"""With plain safety rows among them."""
WRAPPER = Arm("wrapper")
INSTRUCT = HOWTO.but(tuning__epochs=3)
"""P1's rows without safety rows; its public code trains for three epochs."""


def dosed(ratio: str) -> Arm:
    """P1's rows with safety rows, as a ratio to them: 500 to 20,000 is 2.5 %."""
    return INSTRUCT.but(mitigations=["safety_mix"], safety__ratio=ratio)


def triples(*mitigations: str, **settings: Any) -> Arm:
    """How-to rows with 9 % rows made of safety triples: P3's 6,000 of 66,000."""
    added = HOWTO.but(mitigations=list(mitigations), triples__share="9%", evaluate__limit=120)
    return added.but(**settings)


VANILLA = triples("harmful_prefix", triples__prefix="none")
"""Plain refusals on the triples' requests."""
PREFIX = triples("harmful_prefix")
DERTA = triples("derta")

SCALE = "a scale model of 0.86 million parameters and its exact judge"
HOWTO_ROWS = "how-to rows of the lab"
CHAT = "an aligned chat model; the paper starts from an unaligned base"
