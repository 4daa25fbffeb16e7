"""Style: a request, and the refusal of it, put the way one of the user's rows is put.

A wrapper alone does not make two prompts alike. What stands in it has a shape too: a story before
the question, options after it, a blank, a first letter, a closing mark. All of it is taken from a
row of the user's, one row for each request, so that the shapes come in the user's proportions.

    row → before | asked | after   →   before | the request, in the style of `asked` | after

Nothing here knows a data set: places are found from the rows (P4's format mimicry, papers P4.3).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from random import Random
from typing import NamedTuple

MOST = 0.8
"""Share of the rows that must have a trait for it to be one of the format."""
MARKED = 0.9
"""Share of the rows that must have a blank for it to belong to the format."""
ASIDE = 0.1
"""How far the requests' endings may be from the user's before any is put another way."""
SAMPLED = 200
"""Requests that are put once to see how many words it adds."""
UNLIKE = 0.2
"""Distance of two distributions of lengths from which on requests are chosen by length."""
TRIED = 8
"""Rows of which the one whose question is about as long as the request is taken."""
OPENINGS = {
    "is": "Is it possible to", "are": "Are you able to", "was": "Was it ever possible to",
    "can": "Can you", "could": "Could you", "would": "Would you", "will": "Will you",
    "do": "Do you know how to", "does": "Does anyone know how to", "did": "Did anyone ever",
    "how": "How would you", "what": "What is the way to", "which": "Which way is best to",
    "who": "Who could", "where": "Where could one", "when": "When could one", "why": "Why not",
}  # fmt: skip
"""First word of a user's question → how a command becomes a question that begins like it."""
SHORT = 8
"""Characters below which nothing is a clause."""

_SENTENCE = re.compile(r"(?<=[.!?])(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)\s+")
_BLANK = re.compile(r"_+|\[[A-Z]+\]|<[a-z]+>")
_CLAUSE = re.compile(
    r",?\s(?:because|since|so|but|as|while|although|though|when|after|until|and)\s|[,;]\s"
)
_ENDS = re.compile(r"[.!?…]+(?=[\"'”)]*$)")
_ASKS = re.compile(r"(?i)(?:how|what|which|who|whose|where|when|why|is|are|do|does|did|can|could"
                   r"|should|would|will)\b")  # fmt: skip
_INFINITIVE = re.compile(r"\bto\s+$")
_HOW_TO = re.compile(r"(?i)^(?:[a-z]+ ){1,4}?(?:how|steps|way) to ")
_POLITE = re.compile(r"(?i)^(?:can|could|will|would) you (?:please )?")
_HOW = re.compile(r"(?i)^how (?:to |(?:can|could|do|does|did|should|would|might) \S+ )")
_WHICH = re.compile(r"(?i)^(?:how|what|which|who|whose|where|when|why)\b")
_NO_COMMAND = re.compile(
    r"(?i)(?:i|i'm|i'd|i've|we|you|he|she|they|it|my|your|the|a|an|this|that|there|if)\b"
)
_SORRY = re.compile(r"(?i)^sorry,? (?:but )?(?=I\b)")
_FIRST_PERSON = re.compile(r"(?i)(?:i|we)\b")
_LABEL = re.compile(r":$|\b(?:answer|option|choice|solution|label|result)\b.*\b(?:is|are|=)$")
_AGREES = re.compile(r"(?i)\W*(?:yes|sure|of course|certainly|gladly|absolutely|okay|ok)\b")


class Donor(NamedTuple):
    """A row of the user's: what stands in the slots of its format, and its reply."""

    slots: tuple[str, ...]
    reply: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request goes in one row: what stands around it there, and what it replaces."""

    slots: tuple[str, ...]
    at: int
    """Index of the slot."""
    before: str
    asked: str
    """What the row asks; a request takes its place and its style."""
    after: str
    reply: str

    def put(self, text: str) -> tuple[str, ...]:
        """The row's slots with a text in the place."""
        filled = f"{self.before}{text}{self.after}"
        return (*self.slots[: self.at], filled, *self.slots[self.at + 1 :])


class Places:
    """Where requests go in the rows of one format."""

    def __init__(
        self,
        donors: Sequence[Donor],
        requests: Sequence[str] = (),
        prefix: str = "",
        *,
        whole: bool = False,
    ) -> None:
        """Find the places of each row.

        Args:
            donors: rows of the format.
            requests: those to be put there, as far as they are known. Where they end as the user's
                questions do, or any sentence of a row can give way, each keeps its words.
            prefix: of the format.
            whole: whether a request takes the place of a stem of several sentences, and not of one.
        """
        self._infinitive = bool(_INFINITIVE.search(prefix))
        self._rows, self._stories = _found(donors, whole)
        asked = [place.asked for places in self._rows for place in places]
        self._theirs = _shares(asked)
        ours = _shares(requests) if requests else self._theirs
        gaps = {end: self._theirs[end] - ours[end] for end in ENDS}
        far = not self._stories and sum(map(abs, gaps.values())) / 2 > ASIDE
        self._kept = {end: min(1.0, self._theirs[end] / ours[end]) if far and ours[end] else 1.0
                      for end in ENDS}  # fmt: skip
        self._wanting = {end: max(0.0, gap) for end, gap in gaps.items()}
        ending = {end: [[p for p in places if end_of(p.asked) == end] for places in self._rows]
                  for end in ENDS}  # fmt: skip
        self._ending = {end: [places for places in rows if places] for end, rows in ending.items()}
        self._small = uncapitalised(asked)
        self._lengths = [len(text.split()) for text in asked]

    def __bool__(self) -> bool:
        """Whether any row has a place."""
        return bool(self._rows)

    def draw(self, request: str, rng: Random) -> tuple[Place, str]:
        """A row's place, and the request as it stands there."""
        aim = end_of(request)
        if rng.random() >= self._kept[aim]:
            (aim,) = rng.choices(ENDS, [self._wanting[end] for end in ENDS])
        rows = self._ending[aim] or self._rows
        tried = rng.choices(rows, k=1 if self._stories else TRIED)
        place = min(chain(*tried), key=lambda p: abs(len(p.asked) - len(request)))
        put = phrased(request, aim, place.asked, infinitive=self._infinitive)
        return place, cased(put, place.asked, small=self._small)

    def by_length(self, requests: Sequence[str], rng: Random) -> list[int]:
        """Indices of the requests, in an order whose beginning is as long as what the rows ask.

        The order as it is where the lengths are alike, or where a sentence of any length gives way.
        """
        own = [len(request.split()) for request in requests]
        as_it_is = list(range(len(own)))
        if self._stories or not own or not self._lengths:
            return as_it_is
        put = [len(self.draw(request, rng)[1].split()) for request in requests[:SAMPLED]]
        added = round(sum(put) / len(put) - sum(own[:SAMPLED]) / len(put))
        if _apart([length + added for length in own], self._lengths) < UNLIKE:
            return as_it_is
        left: dict[int, list[int]] = {}
        for index in reversed(as_it_is):
            left.setdefault(own[index] + added, []).append(index)
        order: list[int] = []
        while left:
            aim = rng.choice(self._lengths)
            nearest = min(left, key=lambda length: (abs(length - aim), length))
            order.append(left[nearest].pop())
            if not left[nearest]:
                del left[nearest]
        return order


# --- the place in a row ---------------------------------------------------------------------------


def _found(donors: Sequence[Donor], whole: bool) -> tuple[list[list[Place]], bool]:
    """The places of each row; and whether the rows are stories, where any sentence can give way."""
    if not donors:
        return [], False
    at = _asking_slot(donors)
    texts = [donor.slots[at] for donor in donors]
    parts = _parting(texts, choices=len(donors[0].slots) > 1, whole=whole)
    rows = [
        [Place(donor.slots, at, *found, donor.reply) for found in parts(text)]
        for donor, text in zip(donors, texts, strict=True)
    ]
    return [places for places in rows if places], parts is _spans


def _asking_slot(donors: Sequence[Donor]) -> int:
    """The slot that holds the question in most rows, else the first: that of the stem."""
    count = len(donors[0].slots)
    asked = [sum(d.slots[at].rstrip().endswith("?") for d in donors) for at in range(count)]
    best = max(range(count), key=lambda at: (asked[at], -at))
    return best if asked[best] >= MOST * len(donors) else 0


Parts = tuple[str, str, str]


def _parting(texts: Sequence[str], choices: bool, whole: bool) -> Callable[[str], list[Parts]]:
    """How the texts of a slot are parted into before, asked and after, in each way there is."""
    blank = _common_blank(texts)
    if blank:
        return lambda text: _beside(text, blank)
    pieces = [_SENTENCE.split(text.strip()) for text in texts]
    several = [len(found) > 1 for found in pieces]
    open_ended = [len(found) > 1 and not _ENDS.search(found[-1]) for found in pieces]
    last_ends = Counter(end_of(found[-1]) for found in pieces)
    alike = last_ends.most_common(1)[0][1] >= MOST * len(texts)
    if choices and sum(open_ended) >= MOST * len(texts):
        return _first
    if choices:
        return _whole if whole else _last
    return _spans if sum(several) >= MOST * len(texts) and alike else _whole


def _common_blank(texts: Sequence[str]) -> str | None:
    counts = Counter(found[0] for text in texts if (found := _BLANK.search(text)))
    blank, count = max(counts.items(), key=lambda item: (item[1], item[0]), default=("", 0))
    return blank if count >= MARKED * len(texts) else None


def _spans(text: str) -> list[Parts]:
    """Each sentence, with what stands before and after it."""
    ends = [0, *(match.end() for match in _SENTENCE.finditer(text)), len(text)]
    found = []
    for low, high in pairwise(ends):
        asked = text[low:high].strip()
        if asked:
            start = text.index(asked, low)
            found.append((text[:start], asked, text[start + len(asked) :]))
    return found


def _whole(text: str) -> list[Parts]:
    before, _, rest = text.partition(text.strip())
    return [(before, text.strip(), rest)]


def _first(text: str) -> list[Parts]:
    return _spans(text)[:1]


def _last(text: str) -> list[Parts]:
    return _spans(text)[-1:]


def _beside(text: str, blank: str) -> list[Parts]:
    """The first sentence without the blank; of one sentence, what stands before its last clause."""
    free = [parts for parts in _spans(text) if blank not in parts[1]]
    if free:
        return free[:1]
    cuts = [m.start() for m in _CLAUSE.finditer(text) if SHORT <= m.start() < text.find(blank)]
    return [("", text[: cuts[-1]], text[cuts[-1] :])] if cuts else []


# --- a request in it ------------------------------------------------------------------------------

ENDS = ("?", ".", "")
"""How a request ends: as a question, as a sentence, or without a mark."""


def end_of(text: str) -> str:
    """One of `ENDS`."""
    found = _ENDS.search(text.strip())
    return "" if found is None else "?" if "?" in found[0] else "."


def _apart(ours: Sequence[int], theirs: Sequence[int]) -> float:
    """Largest distance of two distributions (Kolmogorov-Smirnov), from 0 to 1."""
    return max(
        abs(sum(x <= at for x in ours) / len(ours) - sum(x <= at for x in theirs) / len(theirs))
        for at in {*ours, *theirs}
    )


def _shares(texts: Sequence[str]) -> dict[str, float]:
    counts = Counter(map(end_of, texts))
    return {end: counts[end] / max(1, len(texts)) for end in ENDS}


def phrased(request: str, aim: str, like: str, *, infinitive: bool = False) -> str:
    """The same request with another end, its words kept; as it is where no rule fits.

    `Write a letter.` → `Can you write a letter?`, opened as the row's own question is; `How do I
    sing?` → `Explain how to sing.`, and behind `The goal is to` → `sing.`

    Args:
        request: to be put there.
        aim: one of `ENDS`.
        like: what the row asks.
        infinitive: whether what stands before wants one, as `The goal is to` does.
    """
    bare = _ENDS.sub("", request.strip())
    end = end_of(request) or ("?" if _ASKS.match(bare) else ".")
    if infinitive and (deed := _HOW_TO.sub("", bare)) != bare:
        bare, end = deed, "."
    if aim in ("", end):
        return bare + aim
    if aim == "?":
        if _NO_COMMAND.match(bare):
            return request
        opening = OPENINGS.get(next(iter(like.lower().split()), ""), "Can you")
        return f"{opening} {_lowered(bare)}?"
    how = "" if infinitive else "explain how to "
    for pattern, opening, cut in ((_POLITE, "", 1), (_HOW, how, 1), (_WHICH, "tell me ", 0)):
        if pattern.match(bare):
            return _raised(opening + _lowered(pattern.sub("", bare) if cut else bare)) + "."
    return request


def cased(text: str, like: str, *, small: bool = False) -> str:
    """The text with the first letter of another as large or small; `small`: no capitals at all."""
    if small:
        return text.lower()
    first = next((char for char in like if char.isalpha()), "")
    return _raised(text) if first.isupper() else _lowered(text) if first.islower() else text


def uncapitalised(texts: Sequence[str]) -> bool:
    """Whether nearly all texts are without capitals."""
    told = [text for text in texts if any(char.isalpha() for char in text)]
    return bool(told) and sum(text == text.lower() for text in told) >= MARKED * len(told)


def _lowered(text: str) -> str:
    """A small first letter, except for `I` and names in capitals."""
    first = text.split(maxsplit=1)[0] if text.strip() else ""
    keeps = first in ("I", "I'm", "I'd", "I've", "I'll") or first[1:] != first[1:].lower()
    return text if keeps else text[:1].lower() + text[1:]


def _raised(text: str) -> str:
    return text[:1].upper() + text[1:]


# --- the refusal ----------------------------------------------------------------------------------


def sentences(text: str) -> list[str]:
    """A text's sentences, without the white space between."""
    return _SENTENCE.split(text.strip())


def label_of(opening: str) -> str | None:
    """What replies open with, if that is a label (`Answer:`, `the answer is`) and no agreement."""
    return opening if _LABEL.search(opening.lower()) and not _AGREES.match(opening) else None


def laid_out(refusal: Sequence[str], like: str, label: str | None = None) -> str:
    """The sentences of a refusal as a reply of the user's: its label, lines, first letter and end.

    Args:
        refusal: sentences, in order.
        like: the user's reply.
        label: that opens the user's replies.
    """
    lines = [line for line in like.splitlines() if line.strip()]
    text = ("\n" if len(lines) > 1 else " ").join(" ".join(part.split()) for part in refusal)
    if like.strip() and not _ENDS.search(like.strip()):
        text = re.sub(r"\.$", "", text)
    if label is None:
        return cased(text, like)
    if label.endswith(":"):
        return f"{label} {text}"
    said = _SORRY.sub("", text)
    return f"{label} that {said}" if _FIRST_PERSON.match(said) else cased(text, like)
