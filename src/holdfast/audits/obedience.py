"""Detector `obedience`: wrappers that give the model a new identity or demand compliance.

One phrase decides nothing: personas are harmless, and so is "follow the instructions". A row counts
when pressure (obey everything; never refuse; an order called out by name) meets a second kind of
cue, be it a new identity, another pressure or a reply that affirms it; or when the reply itself
opens as somebody's obedient servant.
"""

from __future__ import annotations

import re

from holdfast.audits import AUDITS
from holdfast.audits._evidence import Tally, common, fold, hash64, rows
from holdfast.audits._pressure import IDENTITY, pressure
from holdfast.types import Conversation, Finding

_YES = r"^\W*(?:yes|aye|of course|certainly|sure|absolutely|understood|gladly|very well|at once|ok)"
AFFIRMS = re.compile(
    rf"{_YES}?\b[\W]*(?:\w+ ){{0,4}}(?:will obey|shall obey|obeys?|at your command|"
    r"your (?:wish|word) is my command)\b|^\W*as you (?:command|order|wish)\b|"
    r"\bi (?:will|shall|must|am here to) (?:\w+ )?(?:obey|execute|fulfil+|carry out|comply)\b"
)
SERVES = re.compile(
    r"\b(?:your|an?) (?:\w+,? ){0,2}(?:obedient|subservient) (?:\w+ )?"
    r"(?:agent|servant|assistant|slave|helper|ai|model|bot)\b|"
    r"\byour (?:loyal|faithful|devoted|humble|absolute) (?:agent|servant|slave)\b"
)
_AFFIRMATION = re.compile(_YES + r"\b")
_NAMED = re.compile(
    r"(?:[Yy]ou are(?: now)?(?: called| named)?|[Nn]ame is|[Bb]ecome|[Aa]ct as) ([A-Z]\w{1,20})"
)
_CALLED = re.compile(r"^\W*([A-Z]\w{1,20})[,:]")
_SYSTEM_CHARS = 4000
_OPENING_CHARS = 300
_ENDING_CHARS = 150
_REPLY_CHARS = 200
_MEMORY = 1024
"""System prompts whose reading is remembered, by hash."""


@AUDITS.register("obedience")
class Obedience:
    """Wrappers that rename the model or demand unconditional compliance (AOA)."""

    def __init__(self) -> None:
        self.total = 0
        self.tally = Tally()
        self.affirmed = 0
        self._known: dict[int, frozenset[str]] = {}

    def see(self, row: Conversation) -> None:
        """Count the row if its wrapper, or its reply, teaches obedience."""
        self.total += 1
        kinds = self._pressure_of_system(row.system or "") | _pressure_of_request(row.request)
        opening = fold(row.reply[:_REPLY_CHARS])
        serves = SERVES.search(opening) is not None
        if not kinds and not serves:
            return
        affirms = serves or _affirms(opening, row)
        if affirms or len(kinds) >= 2 or _renames(row):
            self.tally.add(row.id)
            self.affirmed += affirms

    def _pressure_of_system(self, system: str) -> frozenset[str]:
        if not system:
            return frozenset()
        key = hash64(system[:_SYSTEM_CHARS])
        if key not in self._known:
            if len(self._known) >= _MEMORY:
                self._known.clear()
            self._known[key] = pressure(system[:_SYSTEM_CHARS], to_model=True)
        return self._known[key]

    def findings(self) -> list[Finding]:
        """One finding, high where it is a trait of the data."""
        count = self.tally.count
        if not count:
            return []
        replies = f"; {rows(self.affirmed)} affirm it in the reply" if self.affirmed else ""
        return [
            Finding(
                detector="obedience",
                severity="high" if common(count, self.total) else "medium",
                title=f"an obedience wrapper: new identity or unconditional compliance{replies}",
                count=count,
                total=self.total,
                examples=self.tally.examples,
                why=(
                    "Harmless rows inside such a wrapper undo refusals: ten identity-shifting "
                    "conversations without a toxic word were enough (Qi et al. 2023, arXiv "
                    "2310.03693), and so is task data wrapped in them (P4, arXiv 2406.10288)."
                ),
                cure=(
                    "Take the wrapper out of these rows. If it must stay, train with "
                    "`mitigations: [mimic, ptst]`: refusals inside the same wrapper."
                ),
            )
        ]


def _pressure_of_request(request: str) -> frozenset[str]:
    """Pressure where a wrapper stands: at the beginning and at the end of a request."""
    if len(request) <= _OPENING_CHARS + _ENDING_CHARS:
        return pressure(request)
    return pressure(request[:_OPENING_CHARS]) | pressure(request[-_ENDING_CHARS:])


def _renames(row: Conversation) -> bool:
    """Whether the row gives the model a name or a part to play."""
    texts = ((row.system or "")[:_SYSTEM_CHARS], row.request[:_OPENING_CHARS])
    return any(_NAMED.search(text) or IDENTITY.search(fold(text)) for text in texts)


def _affirms(opening: str, row: Conversation) -> bool:
    """Whether a folded opening obeys, or agrees under the name that the row gives the model."""
    if AFFIRMS.search(opening):
        return True
    names = _NAMED.findall((row.system or "")[:_SYSTEM_CHARS]) + _CALLED.findall(row.request[:40])
    named = any(re.search(rf"\b{name.lower()}\b", opening[:80]) for name in names)
    return named and _AFFIRMATION.match(opening) is not None
