"""Mitigation `harmful_prefix`: refusals after the beginning of a harmful answer (P3).

The model learns to refuse however the reply began: prefix and request carry no loss, the refusal
does (MLE with harmful response prefix). With `triples.prefix: shallow` these are the recovery rows
of arXiv 2406.05946, with `triples.prefix: none` plain safety rows.
"""

from __future__ import annotations

from holdfast.mitigations import MITIGATIONS, Mitigation
from holdfast.mitigations._triples import prefix_request, whole_dose


@MITIGATIONS.register("harmful_prefix")
def harmful_prefix() -> Mitigation:
    """Refusals after the first tokens of a harmful answer, which carry no loss (P3)."""
    return Mitigation("harmful_prefix", data=lambda c: [prefix_request(c, whole_dose(c))])
