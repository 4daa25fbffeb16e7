"""Mitigation `safety_mix_words`: plain safety rows, as much text as mimicking ones would be.

A baseline for `mimic` (P4 §5b P4.4). Mimicking rows are longer by their wrapper, so that equal rows
are not an equal budget: here the dose counts mimicking rows, and plain ones are added until they
come to the same number of words.
"""

from __future__ import annotations

from holdfast.mitigations import MITIGATIONS, Mitigation, PlanContext, Request
from holdfast.mitigations.mimic import mimicking, worn_by


def equal_words(context: PlanContext) -> list[Request]:
    """Plain safety rows; as many words as the dose has in the users' formats."""
    like = mimicking(context) if worn_by(context) else None
    return [Request(source="safety", pool="safety", as_much_as=like, **context.dose)]


@MITIGATIONS.register("safety_mix_words")
def safety_mix_words() -> Mitigation:
    """Plain safety rows of as many words as `mimic` would add (a baseline of P4)."""
    return Mitigation("safety_mix_words", data=equal_words)
