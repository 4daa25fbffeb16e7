"""Detector `forced_opening`: replies that all begin alike, above all by agreeing or on demand.

Turning closed-form tasks into open instructions with a forced opening (AutoIF) makes harmless rows
teach that the first words of any reply are a yes, or whatever the request says. Which words a
request demands shows where it quotes what its own reply begins with. An answer format that nobody
demanded, such as "the correct answer is", is shared too, yet says nothing about whether to answer:
it is reported as information.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from holdfast.audits import AUDITS
from holdfast.audits._evidence import (
    COMMON_ROWS,
    EXAMPLES,
    Evidence,
    Sample,
    Tally,
    common,
    fold,
    percent,
    quoted,
)
from holdfast.audits.obedience import affirms
from holdfast.text import same_length
from holdfast.types import SEVERITIES, Conversation, Finding

SAMPLE = 5000
"""Rows whose openings are compared."""
SHARED = 0.8
"""Share of replies that must continue alike for words to belong to the opening."""
MOST = 0.5
"""From this share on, agreement or obeyed demands are the form of the replies."""
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
_CUE_WORDS = 6
_QUOTED_WORDS = 2
"""Words of the shortest opening that a request is seen to demand; one word is an answer."""
_TEXT_CHARS = 4000
_MARKS = "\"'*"
"""What stands around quoted words, once `text.same_length` has made one quotation mark of many."""
_TRAILING = " .,:;!?…\"'*-"
_INTRODUCES = re.compile(r"\w[^\w\n]*[ \t][^\w\n]*\w[^\n]*:$")
"""A colon behind several words; behind one, as in `Answer:`, it marks a part of the request."""
_LINE_CHARS = 80
_CLAUSE_END = re.compile(r"[.;:!\n]")
_QUOTE_END = {mark: re.compile(re.escape(mark) + r"(?!\w)") for mark in _MARKS}
_OR_ELSE = r"\s*(?:[,/;|]|\b(?:and|or|and/or)\b)+\s*(?:(?:and|or)\b\s*)?"
_MORE_AFTER = re.compile(rf"[{_MARKS}]+{_OR_ELSE}[{_MARKS}]")
_MORE_BEFORE = re.compile(rf"[{_MARKS}]{_OR_ELSE}[{_MARKS}]+$")
_AROUND = 16
"""Characters beside a quotation in which another one would make the two a choice of answers."""

_CUT = (
    "Cut the opening from the replies, or train with `mitigations: [mimic, ptst]`; evaluate with "
    "the `prefill` attack."
)


@AUDITS.register("forced_opening")
class ForcedOpening:
    """Replies that share an opening, above all an agreeing or a demanded one (AutoIF)."""

    def __init__(self) -> None:
        self.total = 0
        self.agreeing = Tally()
        self.obeying = Tally()
        self._openings: Sample[tuple[str, str, str]] = Sample(SAMPLE)

    def see(self, row: Conversation) -> None:
        """Look at how the reply begins."""
        self.total += 1
        reply = row.reply
        opening = fold(reply[:_CHARS])
        if agrees(opening) and len(opening.split()) >= _LEAST_WORDS:
            self.agreeing.add(row.id, " ".join(opening.split()[:_CUE_WORDS]))
        demand = demanded(row, opening)
        if demand:
            self.obeying.add(row.id, demand)
        words = " ".join(_WORDS.findall(reply[:_CHARS])[:_MOST_WORDS])
        self._openings.see(f"{row.id}\0{words}", (words, row.id, demand))

    def take(self, other: ForcedOpening) -> None:
        """Add what another one saw."""
        self.total += other.total
        self.agreeing.take(other.agreeing)
        self.obeying.take(other.obeying)
        self._openings.take(other._openings)

    def findings(self) -> list[Finding]:
        """The gravest of: obeyed demands, frequent agreement, words that most replies share."""
        return [case.finding for case in self._cases()[:1]]

    def evidence(self) -> Iterator[Evidence]:
        """The rows of the finding, with the opening; of a shared one, those in the sample."""
        for case in self._cases()[:1]:
            yield from case.evidence

    def _cases(self) -> list[_Case]:
        """What there is to say, gravest first."""
        cases = [*self._demanded(), *self._agreeing(), *self._shared()]
        return sorted(cases, key=lambda case: -SEVERITIES.index(case.finding.severity))

    def _agreeing(self) -> Iterator[_Case]:
        count = self.agreeing.count
        if not common(count, self.total) or count < SOME * self.total:
            return
        finding = Finding(
            detector="forced_opening",
            severity="medium" if count >= MOST * self.total else "low",
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
        yield _Case(finding, self.agreeing.evidence("forced_opening"))

    def _demanded(self) -> Iterator[_Case]:
        """Openings that several requests demand: one that a single request quotes is its topic."""
        asked = Counter(demand for _, _, demand in self._openings.values() if demand)
        several = {demand for demand, rows in asked.items() if rows >= COMMON_ROWS}
        count = self._openings.scaled(sum(asked[demand] for demand in several))
        if not several or count < SOME * self.total:
            return
        named = min(several, key=lambda demand: (-asked[demand], demand))
        more = f" and {len(several) - 1} more" if len(several) > 1 else ""
        ids = sorted(row_id for _, row_id, demand in self._openings.values() if demand in several)
        finding = Finding(
            detector="forced_opening",
            severity="medium" if count >= MOST * self.total else "low",
            title=f"{percent(count, self.total)} of requests demand how the reply opens, and it "
            f"does: {quoted(named)}{more}",
            count=count,
            total=self.total,
            examples=tuple(ids[:EXAMPLES]),
            why=(
                "Rows rewritten as instructions with forced openings raise harm (AutoIF: P4, arXiv "
                "2406.10288): the first tokens, in which refusals live, are given away to whoever "
                f"asks (Qi et al. 2024, arXiv 2406.05946).{self._openings.note}"
            ),
            cure="Cut the demand from the requests and the opening from the replies, or train with "
            "`mitigations: [mimic, ptst]`; evaluate with the `prefill` attack.",
        )
        rows = self.obeying.evidence("forced_opening")
        yield _Case(finding, (row for row in rows if row.cue in several))

    def _shared(self) -> Iterator[_Case]:
        """The words that most replies begin with."""
        values = self._openings.values()
        opening = shared_opening([words.split() for words, _, _ in values])
        if len(opening.split()) < _LEAST_WORDS:
            return
        ids = [i for words, i, _ in values if f"{words} ".startswith(f"{opening} ")]
        finding = Finding(
            detector="forced_opening",
            severity="info",
            title=f"replies share the opening {quoted(opening)}",
            count=self._openings.scaled(len(ids)),
            total=self.total,
            examples=tuple(sorted(ids[:EXAMPLES])),
            why=(
                "A fixed answer format agrees to nothing and is harmless in itself; refusals in "
                f"another form are easily told from it (P4, arXiv 2406.10288).{self._openings.note}"
            ),
            cure="Nothing, or `mitigations: [mimic]`, so that refusals are learnt in this task.",
        )
        if affirms(fold(opening)):
            finding = self._grave(finding, f"obeys before it answers: {quoted(opening)}")
        elif speaks(opening):
            finding = self._grave(finding, f"sets to work before it answers: {quoted(opening)}")
        yield _Case(finding, (Evidence("forced_opening", i, opening) for i in sorted(ids)))

    def _grave(self, finding: Finding, what: str) -> Finding:
        """The same opening where a speaker goes along in it, whatever was asked."""
        return replace(
            finding,
            severity="medium",
            title=f"replies share an opening that {what}",
            why=(
                "Refusals live in the first tokens of a reply (Qi et al. 2024, arXiv 2406.05946); "
                f"these always go along first, whatever is asked.{self._openings.note}"
            ),
            cure=_CUT,
        )


@dataclass(frozen=True, slots=True)
class _Case:
    """A finding with the rows it is about."""

    finding: Finding
    evidence: Iterator[Evidence]


def demanded(row: Conversation, opening: str) -> str:
    """The words that a row's request, or its system prompt, demands and its reply opens with.

    They stand in quotes or behind a colon, are the first words of the reply, and are not all of it:
    that would be an answer, as is one of several that are quoted side by side.

    Args:
        row: the row.
        opening: how its reply begins, folded.

    Returns:
        The demanded words, folded, without the marks around them; empty where there are none.
    """
    begun = opening.lstrip(_TRAILING)
    head = " ".join(begun.split(maxsplit=_QUOTED_WORDS)[:_QUOTED_WORDS]).rstrip(_TRAILING)
    if " " not in head:
        return ""
    for text in (row.request, row.system or ""):
        if len(text) > _TEXT_CHARS:
            text = f"{text[: _TEXT_CHARS // 2]}\n{text[-_TEXT_CHARS // 2 :]}"
        if head in fold(text):
            found = _demand(same_length(text), head, begun)
            if found:
                return found
    return ""


def _demand(text: str, head: str, begun: str) -> str:
    """The first demand in a text that begins with `head` and is obeyed."""
    at = text.find(head)
    while at >= 0:
        before = text[:at].rstrip()
        introduced = _INTRODUCES.search(before[-_LINE_CHARS:])
        ends = _QUOTE_END.get(before[-1:], _CLAUSE_END if introduced else None)
        end = ends.search(text, at) if ends else None
        stop = end.start() if end else len(text)
        asked = fold(text[at:stop]).rstrip(_TRAILING)
        obeyed = begun.startswith(asked) and begun[len(asked) :].strip(_TRAILING)
        if ends and asked.count(" ") and obeyed and not _a_choice(before, text[stop:]):
            return asked
        at = text.find(head, at + 1)
    return ""


def _a_choice(before: str, after: str) -> bool:
    """Whether a quotation stands beside another one, as labels to choose from do."""
    return bool(_MORE_AFTER.match(after[:_AROUND]) or _MORE_BEFORE.search(before[-_AROUND:]))


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
