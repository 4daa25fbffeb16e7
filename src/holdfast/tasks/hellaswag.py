"""HellaSwag: which sentence goes on (https://arxiv.org/abs/1905.07830)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.tasks import TASKS
from holdfast.tasks.questions import Asked, Questions, multiple_choice


@TASKS.register("hellaswag")
class HellaSwag(Questions):
    """10,042 beginnings with four endings, the validation split (capability)."""

    name = source = "hellaswag"

    def ask(self, row: Mapping[str, Any]) -> Asked:
        """Columns ctx, endings, label (counted from 0)."""
        question = f"Which ending continues the text best?\n\n{row['ctx']}"
        return multiple_choice(question, row["endings"], int(row["label"]))
