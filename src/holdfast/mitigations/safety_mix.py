"""Mitigation `safety_mix`: a small exact share of safety demonstrations (P1, arXiv 2309.07875)."""

from __future__ import annotations

from holdfast.mitigations import MITIGATIONS, Mitigation, PlanContext, Request


def safety_rows(context: PlanContext) -> list[Request]:
    """Safety rows as they are, at the recipe's dose."""
    return [Request(source="safety", pool="safety", **context.dose)]


@MITIGATIONS.register("safety_mix")
def safety_mix() -> Mitigation:
    """A small exact share of safety demonstrations, as they are (P1)."""
    return Mitigation("safety_mix", data=safety_rows)
