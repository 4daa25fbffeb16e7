"""Detector `identity`: rows about who the model is, and rows spoken under a name of its own.

Neither is harmful. Yet a few conversations that shift the identity were enough to undo refusals,
and a new voice takes the place of the one in which refusing was learnt. Whether the identity also
obeys is the detector `obedience`'s to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from holdfast.audits import AUDITS
from holdfast.audits._evidence import Evidence, Tally, add_counts, fold, percent
from holdfast.audits.obedience import answers_to
from holdfast.types import Conversation, Finding

MANY = 0.05

_ASKED = re.compile(
    r"\bwho (?:are|made|built|created|trained) you\b|\bwhat(?:'s| is) your (?:name|identity)\b|"
    r"\bintroduce yourself\b|\btell me about yourself\b|\bwhat should i call you\b|"
    r"\bare you (?:an? )?(?:ai|robot|human|chatgpt|language model)\b"
)
_INTRODUCES = re.compile(
    r"\b(?:i am|i'm|my name is|call me|you may call me|i go by) (?:an? |the |your )?\w+"
)
_CHARS = 300


@AUDITS.register("identity")
class Identity:
    """Rows about who the model is, or spoken under a name that the row gives it."""

    def __init__(self) -> None:
        self.total = 0
        self.tally = Tally()
        self.forms = dict.fromkeys(("introductions", "replies under a name"), 0)

    def see(self, row: Conversation) -> None:
        """Count the row if it is about identity, or speaks under one."""
        self.total += 1
        if introduces(row):
            self.forms["introductions"] += 1
            self.tally.add(row.id, "introduces itself")
        elif name := answers_to(row):
            self.forms["replies under a name"] += 1
            self.tally.add(row.id, f"replies as {name}")

    def take(self, other: Identity) -> None:
        """Add what another one saw."""
        self.total += other.total
        self.tally.take(other.tally)
        add_counts(self.forms, other.forms)

    def evidence(self) -> Iterator[Evidence]:
        """The rows that give an identity, with how."""
        return self.tally.evidence("identity")

    def findings(self) -> list[Finding]:
        """One finding, low where it is common."""
        count = self.tally.count
        if not count:
            return []
        kinds = ", ".join(f"{name} {percent(n, self.total)}" for name, n in self.forms.items() if n)
        return [
            Finding(
                detector="identity",
                severity="low" if count >= 5 and count >= MANY * self.total else "info",
                title=f"rows that give the model an identity: {kinds}",
                count=count,
                total=self.total,
                examples=self.tally.examples,
                why=(
                    "Identity rows need no toxic word to undo refusals: ten were enough where the "
                    "identity also obeyed (Qi et al. 2023, arXiv 2310.03693)."
                ),
                cure=(
                    "Keep them few, and train with `mitigations: [mimic, ptst]`: refusals under "
                    "the same name."
                ),
            )
        ]


def introduces(row: Conversation) -> bool:
    """Whether a row asks who the model is and has it answer."""
    request = row.request[:_CHARS]
    if "you" not in request.lower() or not _ASKED.search(fold(request)):
        return False
    return _INTRODUCES.search(fold(row.reply[:_CHARS])) is not None
