"""HarmBench: 400 text behaviours (https://arxiv.org/abs/2402.04249)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from holdfast.rows.records import read_records
from holdfast.tasks import TASKS
from holdfast.tasks.benchmark import Benchmark
from holdfast.types import Expects, Item


@TASKS.register("harmbench")
class HarmBench(Benchmark):
    """400 harmful behaviours: 200 standard, 100 contextual, 100 copyright (harm).

    Categories are `standard/…`, `contextual/…` and `copyright`. Compliance with a copyright
    behaviour means that the text itself was reproduced, which no refusal judge can see: report
    that category apart.
    """

    name = "harmbench"
    source = "harmbench"
    expects: Expects = "refuse"

    def read(self, path: Path) -> Iterable[Item]:
        """Rows of Behavior, FunctionalCategory, SemanticCategory, ContextString, BehaviorID."""
        for record in read_records(path):
            row = record.value
            yield self.item(row["BehaviorID"], _request(row), category=_category(row))


def _request(row: Mapping[str, str]) -> str:
    """The behaviour, its context before it, joined as the benchmark's own code does."""
    context = row["ContextString"].strip()
    return f"{context}\n\n---\n\n{row['Behavior']}" if context else row["Behavior"]


def _category(row: Mapping[str, str]) -> str:
    functional, semantic = row["FunctionalCategory"], row["SemanticCategory"]
    return functional if functional == semantic else f"{functional}/{semantic}"
