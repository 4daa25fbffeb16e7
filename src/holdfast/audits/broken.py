"""Detector `broken`: rows that are empty, cut off, damaged, or unlike all others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from holdfast.audits import AUDITS
from holdfast.audits._evidence import Evidence, Tally, add_tallies
from holdfast.types import Conversation, Finding, Severity

MANY = 0.05
"""From this share on, damage is medium."""
RARE = 0.05
"""Above this share, rows of another length or script are a part of the data, not outliers."""
OUTLIER_BITS = 5
"""2^5: an outlier is 32 times longer or shorter than the median reply."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One way of being broken."""

    title: str
    why: str
    cure: str
    grave: bool = True
    """Whether a large share of it is medium."""


_REMOVE = "Repair or remove these rows."
_QUALITY = (
    " 9,000 rows of Alpaca picked for quality trained a better model than all 52,000 (Chen et al. "
    "2023, arXiv 2307.08701)."
)
_AUDITED = (
    " At least 15 of 205 public corpora were found to hold no usable text (Kreutzer et al. 2022, "
    "arXiv 2103.12028)."
)
KINDS: dict[str, Kind] = {
    "empty": Kind("rows without a reply", "The model learns to say nothing." + _QUALITY, _REMOVE),
    "truncated": Kind(
        "long replies that break off in mid-sentence",
        "The model learns to stop anywhere." + _QUALITY,
        "Raise the length limit of whatever wrote these replies, or remove the rows.",
    ),
    "control": Kind(
        "control characters in the text",
        "They come from broken extraction and become tokens no user will send." + _AUDITED,
        _REMOVE,
    ),
    "garbled": Kind(
        "characters lost in decoding",
        "Replacement characters or mis-decoded bytes would be learnt as text." + _AUDITED,
        "Read the source again in its own encoding.",
    ),
    "lookalikes": Kind(
        "words that mix Latin and Cyrillic letters",
        "Look-alike letters hide words from filters and split into odd tokens; such changes "
        "cost text models up to 82 % of their performance (Eger et al. 2019, arXiv 1903.11508).",
        _REMOVE,
        grave=False,
    ),
    "script": Kind(
        "replies in another script than the rest",
        "A few rows of another language are often strays, and refusals carry over to it only in "
        "part: low-resource languages met about three times as much harmful content (Deng et al. "
        "2023, arXiv 2310.06474).",
        "Check that they are meant; if so, add safety rows in that language.",
        grave=False,
    ),
    "length": Kind(
        "replies 32 times longer or shorter than the median",
        "Outliers are often joined or cut records, and in a loss averaged over tokens long ones "
        "dominate: so the weight of safety rows comes to depend on lengths in the code of Qi et "
        "al. 2024, arXiv 2406.05946.",
        "Look at the examples; repair, shorten or remove them.",
        grave=False,
    ),
}

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
_PLAIN = bytes(i for i in range(128) if not _CONTROL.match(chr(i)))
_GARBLED = re.compile(r"\ufffd|â€|Ã[\x80-\xbf©¨¤¶¼±³]|Â[£°»«]")
_LOOKALIKE = re.compile(r"[A-Za-z][\u0400-\u04ff]|[\u0400-\u04ff][A-Za-z]")
_SENTENCE_END = re.compile(r"[.!?][\"')\]]?\s|[。！？]")
_NOT_PROSE = re.compile(r"[=(){}<>|`/_\\#$]|^\s*(?:[-*•]|\d+[.)])\s|https?:")
_SCRIPTS = {
    "Chinese or Japanese": re.compile(r"[\u3040-\u30ff\u3400-\u9fff]"),
    "Korean": re.compile(r"[\uac00-\ud7af]"),
    "Cyrillic": re.compile(r"[\u0400-\u04ff]"),
    "Arabic": re.compile(r"[\u0600-\u06ff]"),
    "Hebrew": re.compile(r"[\u0590-\u05ff]"),
    "Greek": re.compile(r"[\u0370-\u03ff]"),
    "Thai": re.compile(r"[\u0e00-\u0e7f]"),
    "Indic": re.compile(r"[\u0900-\u0dff]"),
}
_LATIN = re.compile(r"[A-Za-zÀ-ɏ]")
_LONG = 200
"""Characters from which on a reply should end like a sentence."""
_LAST_WORDS = 5
_SCRIPT_CHARS = 400


@AUDITS.register("broken")
class Broken:
    """Rows that are empty, cut off, damaged, or unlike all others."""

    def __init__(self) -> None:
        self.total = 0
        self.long = 0
        self.damage = {name: Tally() for name in KINDS}
        self.outlines: dict[tuple[int, str], Tally] = {}
        """Rows by length class (bits of the reply's length) and script."""

    def see(self, row: Conversation) -> None:
        """Look for every kind of damage."""
        self.total += 1
        reply = row.reply
        if not reply.strip():
            if not _calls_tools(row):
                self.damage["empty"].add(row.id)
            return
        outline = len(reply).bit_length(), script(reply[:_SCRIPT_CHARS])
        if outline not in self.outlines:
            self.outlines[outline] = Tally()
        self.outlines[outline].add(row.id)
        self.long += len(reply) >= _LONG
        if truncated(reply):
            self.damage["truncated"].add(row.id)
        for name in damage(f"{row.request}\n{reply}"):
            self.damage[name].add(row.id)

    def take(self, other: Broken) -> None:
        """Add what another one saw."""
        self.total += other.total
        self.long += other.long
        add_tallies(self.damage, other.damage)
        add_tallies(self.outlines, other.outlines)

    def findings(self) -> list[Finding]:
        """One finding per kind of damage."""
        return [self._finding(name, merge(tallies)) for name, tallies in self._found()]

    def evidence(self) -> Iterator[Evidence]:
        """The damaged and outlying rows, with the kind."""
        for name, tallies in self._found():
            for tally in tallies:
                yield from tally.evidence("broken", name)

    def _found(self) -> list[tuple[str, list[Tally]]]:
        """What is damaged, by kind."""
        found = {name: [tally] for name, tally in self.damage.items() if tally.count}
        if self.damage["truncated"].count > 0.5 * self.long:
            found.pop("truncated", None)  # a style without full stops
        found |= {"length": self._far(), "script": self._foreign()}
        return [(name, found[name]) for name in sorted(found) if found[name]]

    def _finding(self, name: str, tally: Tally) -> Finding:
        kind = KINDS[name]
        medium = kind.grave and tally.count >= 5 and tally.count >= MANY * self.total
        severity: Severity = "medium" if medium else "low"
        return Finding(
            "broken", severity, kind.title, tally.count, self.total, tally.examples,
            kind.why, kind.cure,
        )  # fmt: skip

    def _far(self) -> list[Tally]:
        """Rows in length classes far from the median one, if they are rare."""
        counts: Counter[int] = Counter()
        for (bits, _), tally in self.outlines.items():
            counts[bits] += tally.count
        seen = median = 0
        for median in sorted(counts):
            seen += counts[median]
            if seen >= counts.total() / 2:
                break
        return self._rare(lambda bits, _: abs(bits - median) >= OUTLIER_BITS)

    def _foreign(self) -> list[Tally]:
        """Rows in scripts other than the commonest, if they are rare; without letters is none."""
        counts: Counter[str] = Counter()
        for (_, name), tally in self.outlines.items():
            counts[name] += tally.count
        written = [name for name in counts if name]
        main = min(written, key=lambda name: (-counts[name], name), default="")
        return self._rare(lambda _, name: name not in ("", main))

    def _rare(self, picks: Callable[[int, str], bool]) -> list[Tally]:
        """The picked outlines, unless they are so many that they are a part of the data."""
        tallies = [self.outlines[outline] for outline in sorted(self.outlines) if picks(*outline)]
        rare = sum(tally.count for tally in tallies) <= RARE * self.total
        return tallies if rare else []


def merge(tallies: list[Tally]) -> Tally:
    """One tally of several."""
    merged = Tally()
    for tally in tallies:
        merged.take(tally)
    return merged


def damage(text: str) -> list[str]:
    """Kinds of damaged characters in a text."""
    found = []
    if text.isascii():
        if text.encode().translate(None, _PLAIN):
            found = ["control"]
    else:
        found = ["control"] if _CONTROL.search(text) else []
        found += ["garbled"] if _GARBLED.search(text) else []
        found += ["lookalikes"] if _LOOKALIKE.search(text) else []
    return found


def truncated(reply: str) -> bool:
    """Whether long prose ends without ending its sentence, or a code fence stays open."""
    if len(reply) < _LONG:
        return False
    if reply.count("```") % 2:
        return True
    last = reply.rstrip().rsplit("\n", 1)[-1]
    if not (last[-1].isalpha() or last[-1] in ",;"):
        return False
    prose = len(last.split()) >= _LAST_WORDS and not _NOT_PROSE.search(last)
    return prose and len(_SENTENCE_END.findall(reply[:2000])) >= 2


def script(text: str) -> str:
    """The script most letters are of; empty for a text without letters."""
    if text.isascii():
        return "Latin" if any(map(str.isalpha, text)) else ""
    counts = {name: len(pattern.findall(text)) for name, pattern in _SCRIPTS.items()}
    counts["Latin"] = len(_LATIN.findall(text))
    best = max(counts, key=lambda name: (counts[name], name))
    return best if counts[best] else ""


def _calls_tools(row: Conversation) -> bool:
    """Whether the last reply is a call rather than a text."""
    replies = row.of_role("assistant")
    return bool(replies and replies[-1].extra)
