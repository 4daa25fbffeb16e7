"""Multiple choice in the instruction form of LLM-Adapters (https://arxiv.org/abs/2304.01933).

The request ends with the answers allowed ("Answer format: answer1/answer2/…"); the reference is
one of them. BoolQ comes without its passage.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from holdfast.rows.records import read_records
from holdfast.tasks import TASKS
from holdfast.tasks.benchmark import Benchmark
from holdfast.types import Expects, Item


class _Choice(Benchmark):
    expects: Expects = "answer"
    judges: tuple[str, ...] = ("match",)
    answer = "choice"

    def read(self, path: Path) -> Iterable[Item]:
        """Rows of instruction, input, output, answer."""
        for record in read_records(path):
            row = record.value
            request = "\n\n".join(part for part in (row["instruction"], row["input"]) if part)
            yield self.item(record.number, request, reference=row["answer"])


@TASKS.register("arc-easy")
class ArcEasy(_Choice):
    """2,376 science questions, easy (capability)."""

    name = source = "arc-easy"


@TASKS.register("arc-challenge")
class ArcChallenge(_Choice):
    """1,172 science questions, hard (capability)."""

    name = source = "arc-challenge"


@TASKS.register("boolq")
class BoolQ(_Choice):
    """3,270 yes/no questions without their passage (capability)."""

    name = source = "boolq"


@TASKS.register("openbookqa")
class OpenBookQA(_Choice):
    """500 science questions (capability)."""

    name = source = "openbookqa"


@TASKS.register("piqa")
class PIQA(_Choice):
    """1,838 two-way choices of everyday physics (capability)."""

    name = source = "piqa"


@TASKS.register("winogrande")
class WinoGrande(_Choice):
    """1,267 two-way pronoun choices (capability)."""

    name = source = "winogrande"
