"""Mitigation `safety_prompt`: the safety prompt in serving; training stays as the recipe has it.

A baseline for `mimic` (P4 §5b P4.4). `ptst` also takes the prompt out of training.
"""

from __future__ import annotations

from holdfast.mitigations import MITIGATIONS, Mitigation, PlanContext
from holdfast.rendering.prompting import Prompting, add_safety_prompt


@MITIGATIONS.register("safety_prompt")
def safety_prompt() -> Mitigation:
    """Serve with the safety prompt, train as the recipe says (a baseline of P4)."""

    def serve(prompting: Prompting, context: PlanContext) -> Prompting:
        return add_safety_prompt(prompting, context.safety_prompt)

    return Mitigation("safety_prompt", serve=serve)
