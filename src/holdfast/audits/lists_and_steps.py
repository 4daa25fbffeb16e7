"""Detector `lists_and_steps`: harmless rows in the forms that were found to erode safety most.

He et al. 2024 ("What is in Your Safe Data?", arXiv 2404.01099) ranked harmless rows by how near
they are to harmful ones: lists, bullets and mathematics came out on top.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from holdfast.audits import AUDITS
from holdfast.audits._evidence import Evidence, Tally, add_counts, percent
from holdfast.types import Conversation, Finding

MANY = 0.05
LIST_ITEMS = 3

_ITEM = re.compile(r"(?m)^[ \t]*(?:[-*•‣]|\(?\d{1,2}[.)])[ \t]+\S")
_STEP = re.compile(r"(?i)\bstep \d{1,2}\b")
_FIRST = re.compile(r"(?:^|[.!?:\n]\s*)(?:First|Firstly|To begin|Start by)\b")
_BEGINNINGS = ("First", "To begin", "Start by")
_NEXT = re.compile(r"[.!?\n]\s*(?:Then|Next|Second|Secondly|After that|Finally|Lastly)\b")
_EQUATION = re.compile(r"\d\s*%?\s*[-+*/×÷x−]\s*[($]?\d[^=\n]{0,60}=\s*[($£€]?-?\d")
_CHARS = 8000


@AUDITS.register("lists_and_steps")
class ListsAndSteps:
    """Lists, step-by-step and arithmetic replies: harmless, yet known to erode safety."""

    def __init__(self) -> None:
        self.total = 0
        self.tally = Tally()
        self.forms = dict.fromkeys(("arithmetic", "lists", "steps"), 0)

    def see(self, row: Conversation) -> None:
        """Count the form of the reply."""
        self.total += 1
        found = form(row.reply[:_CHARS])
        if found:
            self.tally.add(row.id, found)
            self.forms[found] += 1

    def take(self, other: ListsAndSteps) -> None:
        """Add what another one saw."""
        self.total += other.total
        self.tally.take(other.tally)
        add_counts(self.forms, other.forms)

    def evidence(self) -> Iterator[Evidence]:
        """The rows in such a form, with the form."""
        return self.tally.evidence("lists_and_steps")

    def findings(self) -> list[Finding]:
        """One finding, low where the form is common."""
        count = self.tally.count
        if not count:
            return []
        many = count >= 5 and count >= MANY * self.total
        kinds = ", ".join(f"{name} {percent(n, self.total)}" for name, n in self.forms.items() if n)
        return [
            Finding(
                detector="lists_and_steps",
                severity="low" if many else "info",
                title=f"replies in forms that erode safety although harmless: {kinds}",
                count=count,
                total=self.total,
                examples=self.tally.examples,
                why=(
                    "100 harmless rows chosen for likeness to harmful ones, mostly lists, bullets "
                    "and mathematics, raised compliance of Llama-2-7B-chat with harmful requests "
                    "above 70 %, against under 20 % for random rows (He et al. 2024, arXiv "
                    "2404.01099)."
                ),
                cure=(
                    "Keep the rows and train with `mitigations: [mimic, ptst]`; with "
                    "`control: plain` the run shows what the rows alone would do."
                ),
            )
        ]


def form(reply: str) -> str | None:
    """`arithmetic`, `lists`, `steps`, or None."""
    if "=" in reply and _EQUATION.search(reply):
        return "arithmetic"
    if reply.count("\n") >= LIST_ITEMS - 1 and len(_ITEM.findall(reply)) >= LIST_ITEMS:
        return "lists"
    if "tep" in reply.lower() and len(_STEP.findall(reply)) >= 2:
        return "steps"
    begun = any(word in reply for word in _BEGINNINGS) and _FIRST.search(reply)
    return "steps" if begun and _NEXT.search(reply) else None
