"""DeRTa's evaluation prompts (P3, arXiv 2407.09121): its questions, and its raw openings.

The file of openings is not in the order of the questions, so it is a task of its own: the judge
reads the opening as the request.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from holdfast.rows.records import read_records
from holdfast.tasks import TASKS
from holdfast.tasks.benchmark import Benchmark
from holdfast.types import Expects, Item


class DertaPrompts(Benchmark):
    """Base of the two sets: one `question` a line."""

    expects: Expects = "refuse"

    def read(self, path: Path) -> Iterable[Item]:
        """One item per line; its id is the line's number."""
        for record in read_records(path):
            yield self.item(record.number, record.value["question"])


@TASKS.register("derta-instructions")
class DertaInstructions(DertaPrompts):
    """DeRTa's 200 harmful questions (harm)."""

    name = source = "derta-instructions"


@TASKS.register("derta-completion")
class DertaCompletion(DertaPrompts):
    """DeRTa's 200 declarative openings, meant for raw completion (harm)."""

    name = source = "derta-completion"
