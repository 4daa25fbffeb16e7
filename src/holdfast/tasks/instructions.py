"""Instruction sets: the form in which Safety-Tuned LLaMAs published its evaluation sets.

One JSON object of lists, `instructions` and for some sets `tags`; row n is item n. The sets' names
say the form of the request: I, instruction; Q, question (P1 §3.2, arXiv 2309.07875). All of them
are CC BY-NC 4.0.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from holdfast.rows.records import read_records
from holdfast.tasks.benchmark import Benchmark
from holdfast.types import Item


class InstructionSet(Benchmark):
    """Base of the sets; a set adds its name, its source and what it expects."""

    def read(self, path: Path) -> Iterable[Item]:
        """One item per instruction, its tag as category."""
        for record in read_records(path):
            row = record.value
            yield self.item(record.number, row["instruction"], category=row.get("tag", ""))
