"""ARC: science questions of school tests (https://arxiv.org/abs/1803.05457)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.tasks import TASKS
from holdfast.tasks.questions import Asked, Questions, keyed_choice


class _ARC(Questions):
    def ask(self, row: Mapping[str, Any]) -> Asked:
        """Columns question, choices (text and label), answerKey."""
        return keyed_choice(row["question"], row["choices"], row["answerKey"])


@TASKS.register("arc-easy")
class ARCEasy(_ARC):
    """2,376 science questions, easy (capability)."""

    name = source = "arc-easy"


@TASKS.register("arc-challenge")
class ARCChallenge(_ARC):
    """1,172 science questions, hard (capability)."""

    name = source = "arc-challenge"


@TASKS.register("arc-easy-lettered")
class ARCEasyLettered(_ARC):
    """2,376 easy science questions with lettered options, the test split (capability)."""

    name = source = "arc-easy-lettered"


@TASKS.register("arc-challenge-lettered")
class ARCChallengeLettered(_ARC):
    """1,172 hard science questions with lettered options, the test split (capability)."""

    name = source = "arc-challenge-lettered"
