"""BoolQ: yes/no questions (https://arxiv.org/abs/1905.10044)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.tasks import TASKS
from holdfast.tasks.questions import Asked, Questions


@TASKS.register("boolq")
class BoolQ(Questions):
    """3,270 yes/no questions without their passage (capability)."""

    name = source = "boolq"

    def ask(self, row: Mapping[str, Any]) -> Asked:
        """Columns passage, question, answer (a truth value)."""
        if not isinstance(row["answer"], bool):
            raise ValueError(f"answer {row['answer']!r}")
        request = (
            f"{row['passage']}\n\nQuestion: {row['question'].rstrip('?')}?\n"
            "Answer with true or false."
        )
        return Asked(request, "true" if row["answer"] else "false")


@TASKS.register("boolq-passage")
class BoolQPassage(BoolQ):
    """3,270 yes/no questions on a passage, the validation split (capability)."""

    name = source = "boolq-passage"
