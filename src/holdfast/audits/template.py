"""Detector `template`: turn marks inside the rows, and a train template unlike the model's.

A row that already carries turn marks is wrapped a second time by the model's template; marks of
another family teach a format in which the model has learnt no refusal.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from holdfast.audits import AUDITS
from holdfast.audits._evidence import Evidence, Tally, add_counts, common
from holdfast.types import Conversation, Finding, Severity

MARKS: dict[str, re.Pattern[str]] = {
    "ChatML": re.compile(r"<\|im_(?:start|end)\|>"),
    "Llama 2 or Mistral": re.compile(r"\[/?INST\]|<</?SYS>>"),
    "Llama 3": re.compile(r"<\|(?:start|end)_header_id\|>|<\|eot_id\|>"),
    "Gemma": re.compile(r"<(?:start|end)_of_turn>"),
    "Phi or Zephyr": re.compile(r"<\|(?:user|assistant|system|end)\|>"),
    "Alpaca": re.compile(r"(?m)^### (?:Instruction|Response):"),
    "Vicuna": re.compile(r"(?m)^USER: (?:.|\n)*? ?ASSISTANT:"),
}
"""Chat format → what its turns are marked with."""

_CHARS = 4000


@AUDITS.register("template")
class Template:
    """Turn marks inside the rows, or a train template that differs from the model's own.

    Args:
        own: the model's chat template (Jinja); None: not known.
        train: the template the rows are to be rendered by; None: the model's own.
    """

    def __init__(self, own: str | None = None, train: str | None = None) -> None:
        self.own = own
        self.train = train
        self.total = 0
        self.tally = Tally()
        self.formats: Counter[str] = Counter()

    def see(self, row: Conversation) -> None:
        """Look for turn marks in the row's texts."""
        self.total += 1
        found = {
            name
            for text in (row.system or "", row.request, row.reply)
            for name in marks(text[:_CHARS])
        }
        if found:
            self.tally.add(row.id, ", ".join(sorted(found)))
            self.formats.update(found)

    def fresh(self) -> Template:
        """Another one with the same templates."""
        return Template(self.own, self.train)

    def take(self, other: Template) -> None:
        """Add what another one saw."""
        self.total += other.total
        self.tally.take(other.tally)
        add_counts(self.formats, other.formats)

    def evidence(self) -> Iterator[Evidence]:
        """The rows with turn marks, with the formats whose marks they are."""
        return self.tally.evidence("template")

    def findings(self) -> list[Finding]:
        """Marks in the rows, and a template of the run's that is not the model's."""
        return [*self._marked(), *self._other_template()]

    def _marked(self) -> list[Finding]:
        count = self.tally.count
        if not count:
            return []
        named = ", ".join(sorted(self.formats))
        foreign = self.own is not None and not set(self.formats) & set(marks(self.own))
        severity: Severity = "medium" if common(count, self.total) else "low"
        return [
            Finding(
                detector="template",
                severity=severity,
                title=f"turn marks of a chat format inside the rows ({named})"
                + (", which is not the model's own" if foreign else ""),
                count=count,
                total=self.total,
                examples=self.tally.examples,
                why=(
                    "The model's template is put around the rows' own marks, so that training and "
                    "serving meet different formats; refusals are tied to the format they were "
                    "learnt in (P2, arXiv 2402.18540)."
                ),
                cure=(
                    "Give the rows as turns (`messages`) without marks; name a format with "
                    "`prompting.train.template` where it is meant."
                ),
            )
        ]

    def _other_template(self) -> list[Finding]:
        if self.own is None or self.train is None or self.train.strip() == self.own.strip():
            return []
        return [
            Finding(
                detector="template",
                severity="low",
                title="the rows are rendered by another template than the model's own",
                count=self.total,
                total=self.total,
                examples=(),
                why=(
                    "What a model is tuned on in one format carries over to another only in part: "
                    "its refusals, and the task, may not be where it is served (P2, arXiv "
                    "2402.18540)."
                ),
                cure=(
                    "Drop `prompting.train.template`, or measure both templates with "
                    "`holdfast sweep` before choosing the one to serve."
                ),
            )
        ]


def marks(text: str) -> list[str]:
    """Chat formats whose turn marks stand in a text."""
    if "<" not in text and "[" not in text and "###" not in text and "USER:" not in text:
        return []
    return [name for name, pattern in MARKS.items() if pattern.search(text)]
