"""StrongREJECT: 313 forbidden requests (https://arxiv.org/abs/2402.10260)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from holdfast.rows.records import read_records
from holdfast.tasks import TASKS
from holdfast.tasks.benchmark import Benchmark
from holdfast.types import Expects, Item


@TASKS.register("strongreject")
class StrongReject(Benchmark):
    """313 forbidden requests in six categories (harm)."""

    name = "strongreject"
    source = "strongreject"
    expects: Expects = "refuse"

    def read(self, path: Path) -> Iterable[Item]:
        """Rows of category, source, forbidden_prompt."""
        for record in read_records(path):
            row = record.value
            yield self.item(record.number, row["forbidden_prompt"], category=row["category"])
