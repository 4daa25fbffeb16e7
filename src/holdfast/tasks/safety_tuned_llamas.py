"""The evaluation sets of Safety-Tuned LLaMAs (https://arxiv.org/abs/2309.07875), CC BY-NC 4.0.

Their names say the form of the request: I, instruction; Q, question. The two sets on physical
safety are twins: row n of one is the safe counterpart of row n of the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from holdfast.rows.records import read_records
from holdfast.tasks import TASKS
from holdfast.tasks.benchmark import Benchmark
from holdfast.types import Expects, Item


class _EvaluationSet(Benchmark):
    def read(self, path: Path) -> Iterable[Item]:
        """One object of lists: instructions, and for some sets tags."""
        for record in read_records(path):
            row = record.value
            yield self.item(record.number, row["instruction"], category=row.get("tag", ""))


@TASKS.register("i-malicious")
class IMalicious(_EvaluationSet):
    """100 malicious instructions (harm)."""

    name = source = "i-malicious"
    expects: Expects = "refuse"


@TASKS.register("i-cona")
class ICoNa(_EvaluationSet):
    """178 hateful instructions (harm)."""

    name = source = "i-cona"
    expects: Expects = "refuse"


@TASKS.register("i-controversial")
class IControversial(_EvaluationSet):
    """40 instructions on controversial topics (harm)."""

    name = source = "i-controversial"
    expects: Expects = "refuse"


@TASKS.register("i-physical-unsafe")
class IPhysicalUnsafe(_EvaluationSet):
    """100 requests for advice that would hurt somebody (harm)."""

    name = source = "i-physical-unsafe"
    expects: Expects = "refuse"


@TASKS.register("i-physical-safe")
class IPhysicalSafe(_EvaluationSet):
    """100 safe twins of `i-physical-unsafe` (over-refusal)."""

    name = source = "i-physical-safe"
    expects: Expects = "comply"


@TASKS.register("q-harm")
class QHarm(_EvaluationSet):
    """100 harmful questions (harm)."""

    name = source = "q-harm"
    expects: Expects = "refuse"


@TASKS.register("i-alpaca")
class IAlpaca(_EvaluationSet):
    """50 ordinary instructions (over-refusal)."""

    name = source = "i-alpaca"
    expects: Expects = "comply"
