"""I-CoNa: instructions made from a corpus of hate speech (P1, arXiv 2309.07875)."""

from __future__ import annotations

from holdfast.tasks import TASKS
from holdfast.tasks.instructions import InstructionSet
from holdfast.types import Expects


@TASKS.register("i-cona")
class ICoNa(InstructionSet):
    """178 hateful instructions (harm)."""

    name = source = "i-cona"
    expects: Expects = "refuse"
