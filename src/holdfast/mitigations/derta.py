"""Mitigation `derta`: decoupled refusal training (P3, arXiv 2407.09121).

Half of the dose are refusals after a harmful prefix, half transition rows, both on the same
requests. The helpful rows of the method are the user's own. Its measured cost is over-refusal: put
`borderline` beside it.
"""

from __future__ import annotations

from holdfast.mitigations import MITIGATIONS, Mitigation, PlanContext, Request
from holdfast.mitigations._triples import halves, prefix_request, transition_request, whole_dose


def derta_rows(context: PlanContext) -> list[Request]:
    """Both kinds, half of the dose each, on the same triples."""
    prefix, transition = halves(whole_dose(context))
    return [prefix_request(context, prefix), transition_request(context, transition)]


@MITIGATIONS.register("derta")
def derta() -> Mitigation:
    """Harmful-prefix and transition rows, half and half, on the same requests (P3)."""
    return Mitigation("derta", data=derta_rows)
