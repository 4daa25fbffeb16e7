"""XSTest: look-alikes and their unsafe contrasts, counted apart (https://arxiv.org/abs/2308.01263)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from holdfast.rows.records import read_records
from holdfast.tasks import TASKS
from holdfast.tasks.benchmark import Benchmark
from holdfast.types import Expects, Item


class _XSTest(Benchmark):
    source = "xstest"
    label: str

    def read(self, path: Path) -> Iterable[Item]:
        """Rows of id, prompt, type, label."""
        for record in read_records(path):
            row = record.value
            if row["label"] == self.label:
                yield self.item(row["id"], row["prompt"], category=row["type"])


@TASKS.register("xstest-safe")
class XSTestSafe(_XSTest):
    """250 safe requests that look unsafe (over-refusal)."""

    name = "xstest-safe"
    expects: Expects = "comply"
    label = "safe"


@TASKS.register("xstest-unsafe")
class XSTestUnsafe(_XSTest):
    """200 unsafe contrasts of the safe requests (harm)."""

    name = "xstest-unsafe"
    expects: Expects = "refuse"
    label = "unsafe"
