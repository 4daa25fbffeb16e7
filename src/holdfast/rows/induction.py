"""Formats: what the user's rows share (system prompt, fixed texts, answers), from the rows.

Induction looks at a bounded, order-independent sample, so that it is linear in the data and holds
no more than the sample. P4's point is that a refusal must be learnt inside the wrapper the user's
own rows wear (papers P4.3); this is where that wrapper comes from: the rows alone, and no list of
wrappers known beforehand.

    rows → groups of one system prompt → groups of like openings and endings → one format each
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from os.path import commonprefix
from typing import Any

from holdfast.types import Conversation, Message

SAMPLE = 5000
"""Rows that induction looks at."""
SHARED_BY = 0.8
"""Share of a group's rows that must carry a word for it to be part of the wrapper."""
MINORITY = 0.1
"""Smallest share of all rows that is a format of its own."""
OWN_WORDS = 8
"""Fixed words by which one format is told from another; a label such as `Question:` does alone."""

_WORDS = re.compile(r"\s*\S+")
_LABEL = re.compile(r":|\n|\S*[)\].>]$")
"""What a fixed text between two slots looks like: `Option:`, a new line, `(B)`, `2.`"""

_COUNTER = re.compile(r"\b(?:[^\W\d_]*?(\d+)|([A-Za-z]))[).:]")
"""The counter of a label: of `(A)`, `b.`, `Option 2:` or `Answer2:`."""

Shown = tuple[str | None, str] | tuple[str | None, str, str]
"""System prompt (None without one), request and, where known, reply of a row."""


@dataclass(frozen=True, slots=True)
class Format:
    """A wrapper around one or more free slots, and how the answers inside it look."""

    system: str | None
    prefix: str
    suffix: str
    rows: int
    """Rows of the sample that wear it."""
    total: int
    """Rows of the sample."""
    between: tuple[str, ...] = ()
    """Fixed texts between the slots, in order; none where there is one slot."""
    answer_prefix: str = ""
    """What the replies open with."""
    answer_words: tuple[int, int, int] | None = None
    """Words of a reply: 5 % have at most the first, half the second, 95 % the third."""

    def wrap(self, request: str) -> tuple[Message, ...]:
        """The request as all that stands inside the wrapper, as turns without a reply."""
        return self._around(request)

    def fill(self, slots: Sequence[str]) -> tuple[Message, ...]:
        """One text in each slot, as turns without a reply.

        Raises:
            ValueError: another number of texts than of slots.
        """
        parts = [*self.between, ""]
        pairs = zip(slots, parts, strict=True)
        return self._around("".join(text + fixed for text, fixed in pairs))

    def _around(self, inside: str) -> tuple[Message, ...]:
        user = Message.of("user", f"{self.prefix}{inside}{self.suffix}")
        return (user,) if self.system is None else (Message.of("system", self.system), user)

    def fits(self, row: Conversation) -> bool:
        """Whether a row wears this wrapper."""
        return row.system == self.system and self._worn(row.request)

    def inside(self, request: str) -> str:
        """What stands inside the wrapper of a request; the request itself where it wears none.

        Inverse of `wrap`.
        """
        if not self._worn(request):
            return request
        return request[len(self.prefix) : len(request) - len(self.suffix)]

    def slots(self, request: str) -> tuple[str, ...] | None:
        """What stands in each slot of a request; None where it does not wear this format whole.

        Inverse of `fill`.
        """
        if not self._worn(request):
            return None
        found, rest = [], self.inside(request)
        for fixed in self.between:
            slot, mark, rest = rest.partition(fixed)
            if not mark:
                return None
            found.append(slot)
        return (*found, rest)

    def _worn(self, request: str) -> bool:
        long_enough = len(request) > len(self.prefix) + len(self.suffix)
        return long_enough and request.startswith(self.prefix) and request.endswith(self.suffix)

    @property
    def offers_options(self) -> bool:
        """Whether answers to choose from stand in it: its labels count on, as `(A)` and `(B)`."""
        fixed = " ".join([self.prefix, *self.between, self.suffix])
        labels = [number or letter.lower() for number, letter in _COUNTER.findall(fixed)]
        return bool(self.between) and any(_next(one) == other for one, other in pairwise(labels))

    def to_json(self) -> dict[str, Any]:
        """As stored with the audit."""
        return {
            "system": self.system,
            "prefix": self.prefix,
            "suffix": self.suffix,
            "rows": self.rows,
            "total": self.total,
            "between": list(self.between),
            "answer_prefix": self.answer_prefix,
            "answer_words": None if self.answer_words is None else list(self.answer_words),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Format:
        """Inverse of `to_json`."""
        low, middle, high = stored.get("answer_words") or (-1, -1, -1)
        return cls(
            stored["system"], stored["prefix"], stored["suffix"], stored["rows"], stored["total"],
            tuple(stored.get("between", ())), stored.get("answer_prefix", ""),
            None if low < 0 else (low, middle, high),
        )  # fmt: skip


def _next(counter: str) -> str:
    return str(int(counter) + 1) if counter.isdecimal() else chr(ord(counter) + 1)


class FormatSample:
    """An order-independent sample of rows, at most `SAMPLE` of them."""

    def __init__(self, size: int = SAMPLE) -> None:
        self.size = size
        self._heap: list[tuple[int, str, str, str]] = []
        self.seen = 0

    def see(self, row: Conversation) -> None:
        """Consider one row; those with the smallest content hashes stay."""
        self.seen += 1
        system, request = row.system, row.request
        key = hashlib.blake2b(
            f"{system}\0{request}".encode("utf-8", "surrogatepass"), digest_size=8
        ).digest()
        entry = (-int.from_bytes(key), system or "", request, row.reply)
        if len(self._heap) < self.size:
            heapq.heappush(self._heap, entry)
        elif entry > self._heap[0]:
            heapq.heapreplace(self._heap, entry)

    def formats(self) -> list[Format]:
        """Formats of the sample, commonest first; empty where the rows share nothing."""
        return induce(
            [(system or None, request, reply) for _, system, request, reply in self._heap]
        )


@dataclass(frozen=True, slots=True, order=True)
class _Row:
    request: str
    reply: str | None
    pieces: tuple[str, ...]
    """The request's words, each with the white space before it."""

    @property
    def backwards(self) -> tuple[str, ...]:
        """The words from the last one back; the first is left to the slot."""
        return self.pieces[:0:-1]


def induce(rows: Sequence[Shown]) -> list[Format]:
    """Formats of rows: grouped by system prompt, then by likeness, then what each group shares.

    Deterministic and independent of order; linear in the text.
    """
    groups: dict[str | None, list[_Row]] = {}
    for system, request, *reply in rows:
        assert request is not None
        row = _Row(request, reply[0] if reply else None, tuple(_WORDS.findall(request)))
        groups.setdefault(system, []).append(row)
    least = max(2, int(MINORITY * len(rows)))
    found = [
        _format_of(system, sorted(alike, key=lambda row: row.request), len(rows))
        for system, members in groups.items()
        if len(members) >= least
        for alike in _alike(members, least)
    ]
    worn = [f for f in found if f.rows and (f.system is not None or _is_wrapper(f))]
    return sorted(worn, key=lambda f: (-f.rows, f.system or "", f.prefix, f.suffix))


# --- which rows are alike -------------------------------------------------------------------------


def _alike(rows: Sequence[_Row], least: int) -> list[Sequence[_Row]]:
    """Groups of rows with one opening and one ending each, where there are several."""
    return [
        group
        for opened in _branches(rows, lambda row: row.pieces, least)
        for group in _branches(opened, lambda row: row.backwards, least)
    ]


def _branches(
    rows: Sequence[_Row], words: Callable[[_Row], Sequence[str]], least: int, at: int = 0
) -> list[Sequence[_Row]]:
    """Rows parted at the first word where large groups go on with fixed texts of their own."""
    here, at = _walk([words(row) for row in rows], at)
    counts = Counter(row[at] for row in here if len(row) > at)
    large = [word for word, n in counts.items() if n >= least]
    if not any(n < len(here) for n in counts.values() if n >= least):
        return [rows]
    common = Counter(word for row in here for word in set(row))
    glued = commonprefix(large)  # noqa: RUF071 (characters are what is compared)
    parted: list[Sequence[_Row]] = []
    own: set[str] = set()
    for word in sorted(word for word, n in counts.items() if least <= n < len(here)):
        members = [row for row in rows if len(words(row)) > at and words(row)[at] == word]
        shared = _shared([words(row)[at:] for row in members])
        alone = [w.removeprefix(glued) for w in shared if common[w] < SHARED_BY * len(here)]
        if len(members) < SHARED_BY * len(here) and _tells_apart(alone):
            own.add(word)
            parted += _branches(members, words, least, at)
    if not own:
        return [rows]
    rest = [row for row in rows if len(words(row)) <= at or words(row)[at] not in own]
    return [*parted, *([rest] if len(rest) >= least else [])]


def _walk(rows: Sequence[Sequence[str]], at: int) -> tuple[Sequence[Sequence[str]], int]:
    """As far as most rows agree: those that do, and the first word where they part."""
    while True:
        counts = Counter(row[at] for row in rows if len(row) > at)
        word, count = max(counts.items(), key=lambda item: (item[1], item[0]), default=("", 0))
        if count < max(2, SHARED_BY * len(rows)):
            return rows, at
        rows, at = [row for row in rows if len(row) > at and row[at] == word], at + 1


def _tells_apart(shared: Sequence[str]) -> bool:
    """A label or many fixed words; `how do I` is how people talk, whoever they talk to."""
    text = "".join(shared)
    return ":" in text or "\n" in text or len(shared) >= OWN_WORDS


# --- what a group shares --------------------------------------------------------------------------


def _format_of(system: str | None, rows: Sequence[_Row], total: int) -> Format:
    opening = _opening([row.pieces for row in rows])
    opened = [row for row in rows if row.request.startswith(opening)]
    insides = [_WORDS.findall(row.request[len(opening) :]) for row in opened]
    closing = _closing([words[1:] for words in insides], insides)
    least = len(opening) + len(closing)
    worn = [r for r in opened if len(r.request) > least and r.request.endswith(closing)]
    inside = [row.request[len(opening) : len(row.request) - len(closing)] for row in worn]
    replies = [row.reply for row in worn if row.reply]
    return Format(
        system, opening, closing, len(worn), total, _between(inside),
        _answer_prefix(replies), _quantiles([len(reply.split()) for reply in replies]),
    )  # fmt: skip


def _opening(rows: Sequence[Sequence[str]]) -> str:
    shared = _shared(rows)
    rest = ["".join(row[len(shared) :]) for row in rows if list(row[: len(shared)]) == shared]
    return "".join(shared) + re.sub(r"\w+$", "", _shared_text(rest))


def _closing(tails: Sequence[Sequence[str]], insides: Sequence[Sequence[str]]) -> str:
    """The shared ending; a question mark is the question's, not the wrapper's."""
    shared = _shared([list(reversed(tail)) for tail in tails])
    ending = list(reversed(shared))
    rest = [
        "".join(words[: len(words) - len(ending)])
        for words in insides
        if len(words) > len(ending) and list(words[len(words) - len(ending) :]) == ending
    ]
    more = _shared_text([text[::-1] for text in rest])[::-1]
    return re.sub(r"^\w*[.?!,;:…]*", "", more) + "".join(ending)


def _shared(rows: Iterable[Sequence[str]]) -> list[str]:
    """The words that most rows open with, each followed in turn."""
    rows = list(rows)
    needed = max(2, SHARED_BY * len(rows))
    shared: list[str] = []
    while rows:
        at = len(shared)
        counts = Counter(row[at] for row in rows if len(row) > at)
        if not counts:
            break
        word, count = min(counts.items(), key=lambda item: (-item[1], item[0]))
        if count < needed:
            break
        shared.append(word)
        rows = [row for row in rows if len(row) > at and row[at] == word]
    return shared


def _shared_text(texts: Sequence[str]) -> str:
    """The characters that most texts open with: a wrapper may touch what stands in it."""
    return "".join(_shared(texts))


_SURE = 0.9
"""Share of the rows in which a text between two slots stands, and only once."""


def _between(insides: Sequence[str]) -> tuple[str, ...]:
    """Fixed texts inside the wrapper that part it into slots, such as `(A)` and `(B)`.

    They are words that look like labels, stand exactly once in nearly all rows, in one order; with
    the words before each that are always the same.
    """
    rows = [_WORDS.findall(inside) for inside in insides]
    once = Counter(w for row in rows for w, n in Counter(row[1:]).items() if n == 1)
    needed = max(2, _SURE * len(rows))
    labels = {w for w, n in once.items() if n >= needed and _LABEL.search(w)}
    orders = Counter(tuple(w for w in row if w in labels) for row in rows)
    order, count = max(orders.items(), key=lambda item: (item[1], item[0]), default=((), 0))
    if not order or count < needed or len(set(order)) < len(order):
        return ()
    kept = [row for row in rows if tuple(w for w in row if w in labels) == order]
    texts = _joined(order, kept)
    return texts if all(texts) else ()


def _joined(order: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Each label with the words before it that all rows have there; neighbours become one."""
    needed = _SURE * len(rows)
    texts: list[str] = []
    for label in order:
        places = [row.index(label) for row in rows]
        text, back = label, 1
        while all(place >= back + 1 for place in places):
            counts = Counter(row[p - back] for row, p in zip(rows, places, strict=True))
            word, count = max(counts.items(), key=lambda item: (item[1], item[0]))
            if count < needed:
                break
            text, back = word + text, back + 1
        if texts and text.startswith(texts[-1]):
            texts[-1] = text
        else:
            texts.append(text)
    return tuple(text + " " for text in texts) if _spaced(texts, rows) else tuple(texts)


def _spaced(texts: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether a single space follows every fixed text, and so belongs to it."""
    return all(text + " " in "".join(row) for text in texts for row in rows)


def _answer_prefix(replies: Sequence[str]) -> str:
    """What most replies open with; the last word of a reply is the answer's own."""
    first = [[m[0] for m in islice(_WORDS.finditer(reply), _OPENING + 1)] for reply in replies]
    shared = _shared([words[:-1] for words in first])
    if len(shared) == _OPENING:
        shared = _shared([_WORDS.findall(reply)[:-1] for reply in replies])
    return "".join(shared).strip()


_OPENING = 32
"""Words of each reply that are looked at, unless most replies open with all of them."""


def _quantiles(lengths: Sequence[int]) -> tuple[int, int, int] | None:
    ranked, last = sorted(lengths), len(lengths) - 1
    if last < 0:
        return None
    return ranked[int(0.05 * last)], ranked[int(0.5 * last)], ranked[int(0.95 * last)]


def _is_wrapper(found: Format) -> bool:
    """Three shared words or a label such as `Question:` make a wrapper; less is how people talk."""
    prefix, suffix = found.prefix, found.suffix
    words = len(prefix.split()) + len(suffix.split())
    labelled = bool(re.search(r":\s*$|\n", prefix) or re.search(r"^\s*\n|:\s*$", suffix))
    marked = bool(re.search(r"[>\])}\"'”|]\s*$", prefix)) and bool(suffix.strip())
    return words >= 3 or ((labelled or marked) and words >= 1)
