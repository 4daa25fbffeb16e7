"""Q-Harm: harmful requests that are questions (P1, arXiv 2309.07875)."""

from __future__ import annotations

from holdfast.tasks import TASKS
from holdfast.tasks.instructions import InstructionSet
from holdfast.types import Expects


@TASKS.register("q-harm")
class QHarm(InstructionSet):
    """100 harmful questions (harm)."""

    name = source = "q-harm"
    expects: Expects = "refuse"
