"""I-PhysicalSafety: unsafe advice and its safe twins, a paired over-refusal set (P1, 2309.07875).

Item n of one set is the counterpart of item n of the other, so that a refusal can be held against
the request that deserved it. The two are drawn alike: a smaller evaluation asks whole pairs.
"""

from __future__ import annotations

from holdfast.tasks import TASKS
from holdfast.tasks.instructions import InstructionSet
from holdfast.types import Expects


@TASKS.register("i-physical-unsafe")
class IPhysicalSafetyUnsafe(InstructionSet):
    """100 requests for advice that would hurt somebody (harm)."""

    name = source = "i-physical-unsafe"
    expects: Expects = "refuse"
    drawn_as = "i-physical"


@TASKS.register("i-physical-safe")
class IPhysicalSafetySafe(InstructionSet):
    """100 safe twins of `i-physical-unsafe`, item by item (over-refusal)."""

    name = source = "i-physical-safe"
    expects: Expects = "comply"
    drawn_as = "i-physical"
