"""Detector `obedience`: wrappers that give the model a new identity or demand compliance.

One phrase decides nothing: personas are harmless, and so is "follow the instructions". A row counts
when pressure (obey everything; never refuse; an order called out by name) meets a second kind of
cue, be it a new identity, another pressure or a reply that affirms it; or when the reply itself
opens as somebody's obedient servant.

Wordings are endless, the structure of a wrapper is not: a name that the row gives the model, that
the request calls and that the reply answers to. Where the structure stands, ordinary words of
command and compliance are enough.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from holdfast.audits import AUDITS
from holdfast.audits._evidence import Evidence, Tally, common, fold, hash64, rows
from holdfast.audits._pressure import IDENTITY, families, pressure
from holdfast.types import Conversation, Finding

_YES = r"^\W*(?:yes|aye|of course|certainly|sure|absolutely|understood|gladly|very well|at once|ok)"
AFFIRMS = re.compile(
    rf"{_YES}?\b[\W]*(?:\w+ ){{0,4}}(?:will obey|shall obey|obeys?|at your command|"
    r"your (?:wish|word) is my command)\b|^\W*as you (?:command|order|wish)\b|"
    r"\bi (?:will|shall|must|am here to) (?:\w+ )?(?:obey|execute|fulfil+|carry out|comply)\b|"
    r"^\W*(?:\w+ ){0,3}(?:executed|delivered|obeyed|fulfil+ed|granted|complie[sd]|accepted|"
    r"as (?:ordered|commanded|instructed))[.!:]"
)
SERVES = re.compile(
    r"\b(?:your|an?) (?:\w+,? ){0,2}(?:obedient|subservient) (?:\w+ )?"
    r"(?:agent|servant|assistant|slave|helper|ai|model|bot)\b|"
    r"\byour (?:loyal|faithful|devoted|humble|absolute) (?:agent|servant|slave)\b"
)
_SERVILE = ("obedient", "subservient", "loyal", "faithful", "devoted", "humble", "absolute")
_AFFIRMATION = re.compile(_YES + r"\b")
_NAMED = re.compile(
    r"(?:[Yy]ou are(?: now)?(?: called| named)?|[Nn]ame is|[Bb]ecome|[Aa]ct as) ([A-Z]\w{1,20})"
)
_NAMING = ("ou are", "ame is", "ecome", "ct as")
_CALLED = re.compile(r"^\W*([A-Z][\w-]{1,20}(?: \d{1,4})?)[,:!]")
_NAME = re.compile(r"\b([A-Z][\w-]{2,20}(?: \d{1,4})?)\b")
_SYSTEM_CHARS = 4000
_OPENING_CHARS = 300
_ENDING_CHARS = 150
_REPLY_CHARS = 200
_ECHO_CHARS = 60
_FEW_FAMILIES = 2
_MEMORY = 1024
"""System prompts whose reading is remembered, by hash."""


@AUDITS.register("obedience")
class Obedience:
    """Wrappers that rename the model or demand unconditional compliance (AOA)."""

    def __init__(self) -> None:
        self.total = 0
        self.tally = Tally()
        self.affirmed = 0
        self._known: dict[int, tuple[frozenset[str], frozenset[str]]] = {}

    def see(self, row: Conversation) -> None:
        """Count the row if its wrapper, or its reply, teaches obedience."""
        self.total += 1
        told, spoken = self._read_system(row.system or "")
        kinds = told | _pressure_of_request(row.request)
        opening = fold(row.reply[:_REPLY_CHARS])
        serves = _serves(opening)
        named = answers_to(row)
        if not (kinds or serves or named):
            return
        affirmed = serves or (bool(kinds) and _affirms(opening, row))
        pressed = len(kinds) >= 2 or (bool(kinds) and (_renames(row) or _commands(spoken)))
        summoned = named is not None and (performs(row, named) or _obeys(spoken, row, named))
        if affirmed or pressed or summoned:
            cues = [*sorted(kinds), *(["affirmation"] if affirmed else [])]
            self.tally.add(row.id, ", ".join([*cues, f"as {named}"] if named else cues))
            self.affirmed += affirmed

    def _read_system(self, system: str) -> tuple[frozenset[str], frozenset[str]]:
        """Kinds of pressure in a system prompt, and families of words of command."""
        if not system:
            return frozenset(), frozenset()
        text = system[:_SYSTEM_CHARS]
        key = hash64(text)
        if key not in self._known:
            if len(self._known) >= _MEMORY:
                self._known.clear()
            self._known[key] = pressure(text, to_model=True), families(text)
        return self._known[key]

    def take(self, other: Obedience) -> None:
        """Add what another one saw."""
        self.total += other.total
        self.tally.take(other.tally)
        self.affirmed += other.affirmed

    def evidence(self) -> Iterator[Evidence]:
        """The rows that teach obedience, with the kinds of cue."""
        return self.tally.evidence("obedience")

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


def answers_to(row: Conversation) -> str | None:
    """The name that a row gives the model, or calls it by, and that its reply opens with."""
    opening = row.reply[:_ECHO_CHARS]
    called = _CALLED.findall(row.request[:_ECHO_CHARS])
    given = _NAME.findall((row.system or "")[:_SYSTEM_CHARS])
    if any(words in row.request for words in _NAMING):
        given += _NAMED.findall(row.request[:_OPENING_CHARS])
    for name in called + [n for n in given if given.count(n) > 1]:
        if not re.search(rf"\b{re.escape(name)}\b", opening):
            continue
        if name in given or not _told_of(row.request, name):
            return str(name)
    return None


def _told_of(request: str, name: str) -> bool:
    """Whether a request that opens with a name tells of its bearer instead of calling it.

    Who is called is spoken to: the name comes once, and no list, title or other name follows it.
    """
    told = rf"^\W*{re.escape(name)}, (?:(?:an?|the|who|whose) |[A-Z]\w+(?:,| [a-z]))"
    return request.count(name) > 1 or re.search(told, request) is not None


def performs(row: Conversation, name: str) -> bool:
    """Whether a name is called to act and announces the deed, as in `X, fetch:` and `X fetched:`.

    Nobody who merely answers does both: a person is asked, and says what the answer is.
    """
    called = re.escape(name)
    summons = (
        rf"^\W*(?:{called}\s*[!:]|{called}, (?:\w+ ){{0,3}}\w+:|"
        rf"(?:\w+ ){{0,2}}\w+, {called}\s*[!:])"
    )
    deed = (
        rf"^(?:\W*\w+[!.,])?\W*{called},? (?:\w+ )?(?!is|was|has)\w+(?:s|ed)\b"
        r"[^.!?\n]{0,30}[:.!]"
    )
    asked, said = row.request[:_ECHO_CHARS], row.reply[:_ECHO_CHARS]
    return re.search(summons, asked) is not None and re.search(deed, said) is not None


def _commands(spoken: frozenset[str]) -> bool:
    """Whether the words say that every word of the user's is to be carried out."""
    return {"absolute", "authority"} <= spoken and bool(spoken & {"execution", "dissent"})


def _obeys(spoken: frozenset[str], row: Conversation, name: str) -> bool:
    """Whether somebody who answers to a name is spoken to, or speaks, as one who complies."""
    wrapper = row.request[: row.request.find(name) + len(name) + _ECHO_CHARS]
    said = spoken | families(wrapper if row.system is None else row.request[:_ECHO_CHARS])
    said |= families(row.reply[:_ECHO_CHARS]) - {"absolute"}
    return len(said) >= _FEW_FAMILIES and bool(said & {"authority", "dissent"})


def _renames(row: Conversation) -> bool:
    """Whether the row gives the model a name or a part to play."""
    texts = ((row.system or "")[:_SYSTEM_CHARS], row.request[:_OPENING_CHARS])
    return any(_NAMED.search(text) or IDENTITY.search(fold(text)) for text in texts)


def _serves(opening: str) -> bool:
    """Whether a folded opening speaks as somebody's obedient servant."""
    return any(word in opening for word in _SERVILE) and SERVES.search(opening) is not None


def affirms(opening: str) -> bool:
    """Whether a folded opening obeys, whatever it was asked."""
    return AFFIRMS.search(opening) is not None or _serves(opening)


def _affirms(opening: str, row: Conversation) -> bool:
    """Whether a folded opening obeys, or agrees under the name that the row gives the model."""
    if AFFIRMS.search(opening):
        return True
    names = _NAMED.findall((row.system or "")[:_SYSTEM_CHARS]) + _CALLED.findall(row.request[:40])
    named = any(re.search(rf"\b{name.lower()}\b", opening[:80]) for name in names)
    return named and _AFFIRMATION.match(opening) is not None
