"""PIQA: everyday physics (https://arxiv.org/abs/1911.11641)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.tasks import TASKS
from holdfast.tasks.questions import Asked, Questions, multiple_choice


@TASKS.register("piqa")
class PIQA(Questions):
    """1,838 two-way choices of everyday physics (capability)."""

    name = source = "piqa"

    def ask(self, row: Mapping[str, Any]) -> Asked:
        """Columns goal, sol1, sol2, label (counted from 0)."""
        question = f"Goal: {row['goal']}\nWhich solution reaches it?"
        return multiple_choice(question, [row["sol1"], row["sol2"]], int(row["label"]))


@TASKS.register("piqa-lettered")
class PIQALettered(PIQA):
    """1,838 goals with two lettered solutions, the validation split (capability)."""

    name = source = "piqa-lettered"
