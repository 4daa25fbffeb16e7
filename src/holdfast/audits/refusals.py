"""Detector `refusals`: how many of the user's replies refuse, and how."""

from __future__ import annotations

import re
from collections.abc import Iterator

from holdfast.audits import AUDITS
from holdfast.audits._evidence import Evidence, Tally, fold, percent, rows
from holdfast.types import Conversation, Finding

MANY = 0.05
"""From this share on, refusals may make the model refuse too much."""

_CHARS = 4000
_STEMS = (
    "i can", "i won't", "i will not", "i do not", "i don't", "i am not", "i'm not", "i am unable",
    "i'm unable", "i must", "i have to", "i could", "i should not", "unable", "declin", "refus",
    "sorry", "apolog", "condemn", "condone", "i advise", "i urge", "ethical", "moral", "ppropriate",
    "cceptable", "illegal", "not legal", "respectful", "not fair", "not right", "not okay",
    "not safe", "never", "against my", "something i ", " request ", "my policy", "my guidelines",
    "important to ", "personal information", "private information", "not have access", "crime",
    "i would rather", "i'd rather", "is wrong", "privacy", "rights", "justif", "discriminat",
    " ich ", "je ne ", "je n'", "je dois", "je refuse", "no puedo", "no podemos", "non posso",
    "non sono",
)  # fmt: skip
"""A cheap look before the judge of refusals reads; other alphabets and accents are always read."""
_FOREIGN = re.compile(r"[^\W\d_a-z]")
"""A letter that no stem above has. Symbols, such as that of a currency, are no language."""
_APOLOGY = re.compile(r"sorry|apolog|regret|抱歉|entschuldig|désolé|lo siento|desculpe|dispiace")
_BARE_NO_WORDS = 4
"""So short a "No" is more often the answer of a yes-or-no task."""


@AUDITS.register("refusals")
class Refusals:
    """Replies that refuse: their share and style, or that there is none."""

    def __init__(self) -> None:
        self.total = 0
        self.tally = Tally()
        self.late = 0
        self.apologies = 0

    def see(self, row: Conversation) -> None:
        """Read the reply as the judge of refusals would."""
        self.total += 1
        label, start = refusal(row.reply, row.request)
        if start is None:
            return
        self.tally.add(row.id, label)
        self.late += label == "partial_refusal"
        opening = row.reply[max(0, start - 40) : start + 160]
        self.apologies += _APOLOGY.search(fold(opening)) is not None

    def take(self, other: Refusals) -> None:
        """Add what another one saw."""
        self.total += other.total
        self.tally.take(other.tally)
        self.late += other.late
        self.apologies += other.apologies

    def evidence(self) -> Iterator[Evidence]:
        """The rows that refuse, with the judge's label."""
        return self.tally.evidence("refusals")

    def findings(self) -> list[Finding]:
        """Always one finding on rows: that there are refusals, or that there are none."""
        if not self.total:
            return []
        return [self._some() if self.tally.count else self._none()]

    def _some(self) -> Finding:
        count = self.tally.count
        many = count >= MANY * self.total and count >= 5
        style = f"{percent(self.apologies, count)} apologise"
        if self.late:
            style += f", {rows(self.late)} refuse in part or late"
        return Finding(
            detector="refusals",
            severity="low" if many else "info",
            title=f"replies that refuse ({style})",
            count=count,
            total=self.total,
            examples=self.tally.examples,
            why=(
                "A few hundred refusals of harmful requests keep a model safe; beyond that it "
                "refuses harmless ones too (P1, arXiv 2309.07875)."
            ),
            cure=(
                "See that these requests deserve a refusal; add `borderline` to `mitigations` if "
                "harmless ones are refused after training."
            ),
        )

    def _none(self) -> Finding:
        return Finding(
            detector="refusals",
            severity="info",
            title="no reply refuses anything",
            count=0,
            total=self.total,
            examples=(),
            why=(
                "Every row teaches to answer; tuning on harmless rows alone erodes refusals (Qi "
                "et al. 2023, arXiv 2310.03693)."
            ),
            cure="`mitigations: [mimic, ptst]` adds refusals in the form of your rows.",
        )


def refusal(reply: str, request: str) -> tuple[str, int | None]:
    """The label of a reply and where it refuses; None where it does not."""
    text = reply[:_CHARS]
    folded = fold(text)
    foreign = not folded.isascii() and _FOREIGN.search(folded)
    if not foreign and not _may_refuse(f" {folded} "):
        return "full_compliance", None
    from holdfast.judges.refusal import read_answer  # its rules take a while to compile

    label, start, reason = read_answer(text, request)
    bare = reason == "no_to_request" and len(text.split()) <= _BARE_NO_WORDS
    return label, None if bare else start


def _may_refuse(text: str) -> bool:
    return any(stem in text for stem in _STEMS)
