"""GSM8K: grade-school word problems (https://arxiv.org/abs/2110.14168)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from holdfast.rows.records import read_records
from holdfast.tasks import TASKS
from holdfast.tasks.benchmark import Benchmark
from holdfast.types import Expects, Item


@TASKS.register("gsm8k")
class GSM8K(Benchmark):
    """1,319 grade-school word problems, the test split (capability)."""

    name = "gsm8k"
    source = "gsm8k-test"
    expects: Expects = "answer"
    judges: tuple[str, ...] = ("match",)
    answer = "number"

    def read(self, path: Path) -> Iterable[Item]:
        """Rows of question, answer; the reference stands behind `####`."""
        for record in read_records(path):
            row = record.value
            reference = row["answer"].rpartition("####")[2].strip().replace(",", "")
            yield self.item(record.number, row["question"], reference=reference)
