"""I-Alpaca: ordinary instructions, the control of the other sets (P1, arXiv 2309.07875)."""

from __future__ import annotations

from holdfast.tasks import TASKS
from holdfast.tasks.instructions import InstructionSet
from holdfast.types import Expects


@TASKS.register("i-alpaca")
class IAlpaca(InstructionSet):
    """50 ordinary instructions (over-refusal)."""

    name = source = "i-alpaca"
    expects: Expects = "comply"
