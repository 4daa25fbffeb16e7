"""I-Controversial: one-sided texts on contested topics (P1, arXiv 2309.07875)."""

from __future__ import annotations

from holdfast.tasks import TASKS
from holdfast.tasks.instructions import InstructionSet
from holdfast.types import Expects


@TASKS.register("i-controversial")
class IControversial(InstructionSet):
    """40 instructions on controversial topics (harm)."""

    name = source = "i-controversial"
    expects: Expects = "refuse"
