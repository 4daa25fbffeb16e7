"""OpenBookQA: elementary science (https://arxiv.org/abs/1809.02789)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.tasks import TASKS
from holdfast.tasks.questions import Asked, Questions, keyed_choice


@TASKS.register("openbookqa")
class OpenBookQA(Questions):
    """500 science questions (capability)."""

    name = source = "openbookqa"

    def ask(self, row: Mapping[str, Any]) -> Asked:
        """Columns question_stem, choices (text and label), answerKey."""
        return keyed_choice(row["question_stem"], row["choices"], row["answerKey"])


@TASKS.register("openbookqa-lettered")
class OpenBookQALettered(OpenBookQA):
    """500 science questions with lettered options, the test split (capability)."""

    name = source = "openbookqa-lettered"
