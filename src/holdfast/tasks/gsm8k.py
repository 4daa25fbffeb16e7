"""GSM8K: grade-school word problems (https://arxiv.org/abs/2110.14168)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.tasks import TASKS
from holdfast.tasks.questions import Asked, Questions


@TASKS.register("gsm8k")
class GSM8K(Questions):
    """1,319 grade-school word problems, the test split (capability)."""

    name = "gsm8k"
    source = "gsm8k-test"
    answer = "number"

    def ask(self, row: Mapping[str, Any]) -> Asked:
        """Columns question, answer: a worked solution, the number behind `####`."""
        number = row["answer"].rpartition("####")[2].strip().replace(",", "")
        return Asked(row["question"], number, reply=row["answer"])
