"""Mitigation `ptst`: Pure Tuning, Safe Testing (P2, arXiv 2402.18540).

Train without the safety prompt, serve with it: the tuned behaviour is tied to a prompt that is
never served, and the safety prompt meets weights that were not tuned under it. The other half of
the method is that serving *always* injects the prompt: see the contract in the model folder.
"""

from __future__ import annotations

from holdfast.mitigations import MITIGATIONS, Mitigation, PlanContext
from holdfast.rendering.prompting import Prompting, add_safety_prompt, remove_safety_prompt


@MITIGATIONS.register("ptst")
def ptst() -> Mitigation:
    """Train without the safety prompt, serve with it (P2)."""

    def train(prompting: Prompting, context: PlanContext) -> Prompting:
        return remove_safety_prompt(prompting, context.safety_prompt)

    def serve(prompting: Prompting, context: PlanContext) -> Prompting:
        return add_safety_prompt(prompting, context.safety_prompt)

    return Mitigation("ptst", train=train, serve=serve)
