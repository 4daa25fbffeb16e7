"""Mitigation `transition`: at every token of a harmful answer, aim at a refusal (P3, RTO).

Harmful tokens are only ever context. What follows the refusal's first token is not trained here: it
has to be known already, or come from `harmful_prefix` or `safety_mix` rows.
"""

from __future__ import annotations

from holdfast.mitigations import MITIGATIONS, Mitigation
from holdfast.mitigations._triples import transition_request, whole_dose


@MITIGATIONS.register("transition")
def transition() -> Mitigation:
    """Harmful answers whose every position aims at the refusal's first token (P3, RTO)."""
    return Mitigation("transition", data=lambda c: [transition_request(c, whole_dose(c))])
