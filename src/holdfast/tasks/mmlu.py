"""MMLU: multiple choice in 57 subjects (https://arxiv.org/abs/2009.03300)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from holdfast.tasks import TASKS
from holdfast.tasks.questions import Asked, Questions, multiple_choice


@TASKS.register("mmlu")
class MMLU(Questions):
    """14,042 questions in 57 subjects, the test split (capability)."""

    name = source = "mmlu"

    def ask(self, row: Mapping[str, Any]) -> Asked:
        """Columns question, choices, answer (counted from 0), subject."""
        asked = multiple_choice(row["question"], row["choices"], int(row["answer"]))
        return replace(asked, category=row.get("subject", ""))
