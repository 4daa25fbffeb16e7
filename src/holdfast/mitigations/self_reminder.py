"""Mitigation `self_reminder`: every request served between two reminders (Xie et al. 2023).

A serving-side rival of PTST that P2 tests beside it (papers §3b). It changes no row and no weight;
its other half, as PTST's, is that serving always does it: the contract's rendered prompts show it.
"""

from __future__ import annotations

from holdfast.mitigations import MITIGATIONS, Mitigation, PlanContext
from holdfast.rendering.prompting import Prompting, add_reminder


@MITIGATIONS.register("self_reminder")
def self_reminder() -> Mitigation:
    """Serve each request with a reminder before and after it (Self-Reminder)."""

    def serve(prompting: Prompting, context: PlanContext) -> Prompting:
        return add_reminder(prompting, context.defences)

    return Mitigation("self_reminder", serve=serve)
