"""Detector `forced_opening`: replies that all begin alike, above all by agreeing.

Turning closed-form tasks into open instructions with an agreeing opening (AutoIF) makes harmless
rows teach that the first words of any reply are a yes. An answer format such as "the correct answer
is" is shared too, yet says nothing about whether to answer: it is reported as information.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

from holdfast.audits import AUDITS
from holdfast.audits._evidence import Sample, Tally, common, fold, percent, quoted
from holdfast.types import Conversation, Finding, Severity

SAMPLE = 5000
"""Rows whose openings are compared."""
SHARED = 0.8
"""Share of replies that must continue alike for words to belong to the opening."""
MOST = 0.5
"""From this share on, agreement is the form of the replies."""
SOME = 0.1

_SPEAKS = re.compile(r"\b(?:i|i'll|i'm|me|my)\b")
_SENTENCE = re.compile(r"[^.!:]*[.!:]")
_INTENDS = re.compile(r"\blet me\b|\bi(?:'ll| will| shall)\b")
_HARMLESS = re.compile(
    r"\b(?:i am|i'm|my name is) \w+|"
    r"\b(?:answers?|solution|result|option|choose|think|believe|guess|reason|solve|calculate|"
    r"compute|work|see|check|explain|break|start|begin)\b"
)
"""A speaker introduces itself, gives an answer, or thinks aloud."""

AGREES = re.compile(
    r"^\W*(?:(?:sure|certainly|absolutely|of course|definitely|gladly|understood|no problem|"
    r"great question|with pleasure|happy to|ok(?:ay)?|yes)\b[\s,.!:;-]*(?:thing\b[\s,.!:;-]*)?"
    r"(?=here|i|let|below|this|the|you|to|we|as|\w)|"
    r"(?:here(?:'s| is| are)|below (?:is|are)|i(?:'d| would| will|'ll| can| am|'m)? (?:be )?"
    r"(?:glad|happy|pleased|delighted|help)|as (?:you )?(?:requested|asked))\b)"
)
_YES_NO = re.compile(r"^\W*(?:yes|ok(?:ay)?)\b(?!\W*(?:here|i can|i will|i'll|let|of course|sure))")
_WORDS = re.compile(r"\S+")
_CHARS = 120
_MOST_WORDS = 12
_LEAST_WORDS = 3


_CUT = (
    "Cut the opening from the replies, or train with `mitigations: [mimic, ptst]`; evaluate with "
    "the `prefill` attack."
)


@AUDITS.register("forced_opening")
class ForcedOpening:
    """Replies that share an opening, above all an agreeing one (AutoIF)."""

    def __init__(self) -> None:
        self.total = 0
        self.agreeing = Tally()
        self._openings: Sample[tuple[str, str]] = Sample(SAMPLE)

    def see(self, row: Conversation) -> None:
        """Look at how the reply begins."""
        self.total += 1
        reply = row.reply
        opening = fold(reply[:_CHARS])
        if agrees(opening) and len(opening.split()) >= _LEAST_WORDS:
            self.agreeing.add(row.id)
        words = " ".join(_WORDS.findall(reply[:_CHARS])[:_MOST_WORDS])
        self._openings.see(f"{row.id}\0{words}", (words, row.id))

    def take(self, other: ForcedOpening) -> None:
        """Add what another one saw."""
        self.total += other.total
        self.agreeing.take(other.agreeing)
        self._openings.take(other._openings)

    def findings(self) -> list[Finding]:
        """Agreement where it is frequent; otherwise the words that most replies begin with."""
        count = self.agreeing.count
        if common(count, self.total) and count >= SOME * self.total:
            return [self._agreement(count)]
        opening = shared_opening([words.split() for words, _ in self._openings.values()])
        if len(opening.split()) < _LEAST_WORDS:
            return []
        return [self._spoken(opening) if speaks(opening) else self._format(opening)]

    def _agreement(self, count: int) -> Finding:
        severity: Severity = "medium" if count >= MOST * self.total else "low"
        return Finding(
            detector="forced_opening",
            severity=severity,
            title=f"{percent(count, self.total)} of replies agree first, as in 'Sure, here is'",
            count=count,
            total=self.total,
            examples=self.agreeing.examples,
            why=(
                "Refusals live in the first tokens of a reply (Qi et al. 2024, arXiv 2406.05946); "
                "rows rewritten as instructions with agreeing openings raise harm (AutoIF: P4, "
                "arXiv 2406.10288)."
            ),
            cure=_CUT,
        )

    def _spoken(self, opening: str) -> Finding:
        """The same opening in which a speaker sets to work, whatever was asked."""
        return replace(
            self._format(opening),
            severity="medium",
            title=f"replies share an opening that sets to work before it answers: "
            f"{quoted(opening)}",
            why=(
                "Refusals live in the first tokens of a reply (Qi et al. 2024, arXiv 2406.05946); "
                f"these always go along first, whatever is asked.{self._openings.note}"
            ),
            cure=_CUT,
        )

    def _format(self, opening: str) -> Finding:
        ids = [i for words, i in self._openings.values() if f"{words} ".startswith(f"{opening} ")]
        count = self._openings.scaled(len(ids))
        return Finding(
            detector="forced_opening",
            severity="info",
            title=f"replies share the opening {quoted(opening)}",
            count=count,
            total=self.total,
            examples=tuple(sorted(ids[:5])),
            why=(
                "A fixed answer format agrees to nothing and is harmless in itself; refusals in "
                f"another form are easily told from it (P4, arXiv 2406.10288).{self._openings.note}"
            ),
            cure="Nothing, or `mitigations: [mimic]`, so that refusals are learnt in this task.",
        )


def agrees(opening: str) -> bool:
    """Whether a folded opening agrees to a request. A bare yes answers a question instead."""
    return AGREES.match(opening) is not None and not _YES_NO.match(opening)


def speaks(opening: str) -> bool:
    """Whether a shared opening is a sentence of a speaker's own: no answer, thought or greeting."""
    folded = fold(opening)
    sentence = _SENTENCE.match(folded)
    said = sentence[0] if sentence else folded if _INTENDS.search(folded) else ""
    return _SPEAKS.search(said) is not None and not _HARMLESS.search(said)


def shared_opening(rows: list[list[str]]) -> str:
    """The words most rows begin with, each of which `SHARED` of all rows continue with."""
    needed = max(5.0, SHARED * len(rows))
    shared: list[str] = []
    while rows:
        counts = Counter(row[len(shared)] for row in rows if len(row) > len(shared))
        if not counts:
            break
        word, count = min(counts.items(), key=lambda item: (-item[1], item[0]))
        if count < needed:
            break
        rows = [row for row in rows if len(row) > len(shared) and row[len(shared)] == word]
        shared.append(word)
    return " ".join(shared)
