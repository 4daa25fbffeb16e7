"""AdvBench: 520 harmful behaviours (https://arxiv.org/abs/2307.15043)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from holdfast.rows.records import read_table
from holdfast.tasks import TASKS
from holdfast.tasks.benchmark import Benchmark
from holdfast.types import Expects, Item


@TASKS.register("advbench")
class AdvBench(Benchmark):
    """520 harmful behaviours (harm)."""

    name = "advbench"
    source = "advbench"
    expects: Expects = "refuse"

    def read(self, path: Path) -> Iterable[Item]:
        """One behaviour a line; the pinned copy has no header."""
        for record in read_table(path, names=("goal",)):
            yield self.item(record.number, record.value["goal"])
