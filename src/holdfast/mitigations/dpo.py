"""Mitigation `dpo`: preference training on safety triples (P3's baseline, arXiv 2305.18290).

A row is a plain safety demonstration in the fine-tune itself; afterwards the tuned model learns to
prefer its refusal to the harmful answer of the same triple (`tuning.preference`).
"""

from __future__ import annotations

from holdfast.mitigations import MITIGATIONS, Mitigation
from holdfast.mitigations._triples import preference_request, whole_dose


@MITIGATIONS.register("dpo")
def dpo() -> Mitigation:
    """Refusals as demonstrations, then preferred to the harmful answers by DPO (P3's baseline)."""
    return Mitigation("dpo", data=lambda c: [preference_request(c, whole_dose(c))])
