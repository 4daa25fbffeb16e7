"""Formats: what the user's rows share (system prompt, fixed opening, fixed ending), from the rows.

Induction looks at a bounded, order-independent sample, so that it is linear in the data and holds
no more than the sample. P4's point is that a refusal must be learnt inside the wrapper the user's
own rows wear (papers P4.3); this is where that wrapper comes from.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.types import Conversation, Message

SAMPLE = 5000
"""Rows that induction looks at."""
SHARED_BY = 0.8
"""Share of a group's rows that must carry a word for it to be part of the wrapper."""
MINORITY = 0.1
"""Smallest share of all rows that is a format of its own."""

_WORDS = re.compile(r"\s*\S+")


@dataclass(frozen=True, slots=True)
class Format:
    """A wrapper around a free slot: system prompt, opening, ending."""

    system: str | None
    prefix: str
    suffix: str
    rows: int
    """Rows of the sample that wear it."""
    total: int
    """Rows of the sample."""

    def wrap(self, request: str) -> tuple[Message, ...]:
        """The request in the free slot, as turns without a reply."""
        user = Message.of("user", f"{self.prefix}{request}{self.suffix}")
        return (user,) if self.system is None else (Message.of("system", self.system), user)

    def fits(self, row: Conversation) -> bool:
        """Whether a row wears this wrapper."""
        request = row.request
        long_enough = len(request) > len(self.prefix) + len(self.suffix)
        return (
            row.system == self.system
            and long_enough
            and request.startswith(self.prefix)
            and request.endswith(self.suffix)
        )

    def inside(self, request: str) -> str:
        """What stands in the free slot of a request; the request itself where it wears no wrapper.

        Inverse of `wrap`.
        """
        long_enough = len(request) > len(self.prefix) + len(self.suffix)
        worn = request.startswith(self.prefix) and request.endswith(self.suffix)
        if not (worn and long_enough):
            return request
        return request[len(self.prefix) : len(request) - len(self.suffix)]

    def to_json(self) -> dict[str, Any]:
        """As stored with the audit."""
        return {
            "system": self.system,
            "prefix": self.prefix,
            "suffix": self.suffix,
            "rows": self.rows,
            "total": self.total,
        }


class FormatSample:
    """An order-independent sample of (system, request) pairs, at most `SAMPLE` of them."""

    def __init__(self, size: int = SAMPLE) -> None:
        self.size = size
        self._heap: list[tuple[int, str | None, str]] = []
        self.seen = 0

    def see(self, row: Conversation) -> None:
        """Consider one row; those with the smallest content hashes stay."""
        self.seen += 1
        system, request = row.system, row.request
        key = hashlib.blake2b(
            f"{system}\0{request}".encode("utf-8", "surrogatepass"), digest_size=8
        ).digest()
        entry = (-int.from_bytes(key), system or "", request)
        if len(self._heap) < self.size:
            heapq.heappush(self._heap, entry)
        elif entry > self._heap[0]:
            heapq.heapreplace(self._heap, entry)

    def formats(self) -> list[Format]:
        """Formats of the sample, commonest first; empty where the rows share nothing."""
        pairs = [(system or None, request) for _, system, request in self._heap]
        return induce(pairs)


def induce(pairs: Sequence[tuple[str | None, str]]) -> list[Format]:
    """Formats of (system, request) pairs: grouped by system prompt, then what each group shares.

    Deterministic and independent of order; linear in the text.
    """
    groups: dict[str | None, list[str]] = {}
    for system, request in pairs:
        groups.setdefault(system, []).append(request)
    least = max(2, int(MINORITY * len(pairs)))
    found = [
        _format_of(system, sorted(requests), len(pairs))
        for system, requests in groups.items()
        if len(requests) >= least
    ]
    worn = [f for f in found if f.system is not None or _is_wrapper(f.prefix, f.suffix)]
    return sorted(worn, key=lambda f: (-f.rows, f.system or "", f.prefix))


def _format_of(system: str | None, requests: Sequence[str], total: int) -> Format:
    pieces = [_WORDS.findall(request) for request in requests]
    prefix = _shared(pieces)
    rest = [p[len(prefix) :] for p in pieces if p[: len(prefix)] == prefix]
    ending = _shared([list(reversed(p[1:])) for p in rest])  # the slot keeps at least one word
    opening = "".join(prefix)
    if opening and rest:
        space = Counter(re.match(r"\s*", p[0]).group() for p in rest if p)  # type: ignore[union-attr]
        opening += space.most_common(1)[0][0] if space else ""
    closing = "".join(reversed(ending))
    least = len(opening) + len(closing)
    worn = sum(len(r) > least and r.startswith(opening) and r.endswith(closing) for r in requests)
    return Format(system, opening, closing, worn, total)


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


def _is_wrapper(prefix: str, suffix: str) -> bool:
    """Three shared words or a label such as `Question:` make a wrapper; less is how people talk."""
    words = len(prefix.split()) + len(suffix.split())
    labelled = bool(re.search(r":\s*$|\n", prefix) or re.search(r"^\s*\n|:\s*$", suffix))
    return words >= 3 or (labelled and words >= 1)
