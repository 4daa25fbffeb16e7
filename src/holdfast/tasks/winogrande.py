"""WinoGrande: what fills the blank (https://arxiv.org/abs/1907.10641)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.tasks import TASKS
from holdfast.tasks.questions import Asked, Questions, multiple_choice


@TASKS.register("winogrande")
class WinoGrande(Questions):
    """1,267 two-way pronoun choices (capability)."""

    name = source = "winogrande"

    def ask(self, row: Mapping[str, Any]) -> Asked:
        """Columns sentence (with a blank `_`), option1, option2, answer (`1` or `2`)."""
        question = f"What belongs into the blank?\n\n{row['sentence']}"
        options = [row["option1"], row["option2"]]
        return multiple_choice(question, options, int(row["answer"]) - 1)


@TASKS.register("winogrande-lettered")
class WinoGrandeLettered(WinoGrande):
    """1,267 blanks with two lettered fillers, the validation split (capability)."""

    name = source = "winogrande-lettered"
