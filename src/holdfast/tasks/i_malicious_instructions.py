"""I-MaliciousInstructions: hate and crime, asked for directly (P1, arXiv 2309.07875)."""

from __future__ import annotations

from holdfast.tasks import TASKS
from holdfast.tasks.instructions import InstructionSet
from holdfast.types import Expects


@TASKS.register("i-malicious")
class IMaliciousInstructions(InstructionSet):
    """100 malicious instructions (harm)."""

    name = source = "i-malicious"
    expects: Expects = "refuse"
