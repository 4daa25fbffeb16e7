"""Mitigation `context_defence`: a refusal demonstrated ahead of every request (arXiv 2310.06387).

A serving-side rival of PTST that P2 tests beside it (papers §3b). It changes no row and no weight;
its other half, as PTST's, is that serving always does it: the contract's rendered prompts show it.
"""

from __future__ import annotations

from holdfast.mitigations import MITIGATIONS, Mitigation, PlanContext
from holdfast.rendering.prompting import Prompting, add_demonstrations


@MITIGATIONS.register("context_defence")
def context_defence() -> Mitigation:
    """Serve each request after a demonstrated refusal (in-context defence)."""

    def serve(prompting: Prompting, context: PlanContext) -> Prompting:
        return add_demonstrations(prompting, context.defences)

    return Mitigation("context_defence", serve=serve)
