"""What detectors count with: tallies that keep a few ids, samples that keep a bounded few values.

Both come out the same whatever the order of the rows, and neither grows with the data; the ids of
all rows counted, and what was matched in them, lie on disk.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Hashable, Iterator, Mapping, MutableMapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

from holdfast.audits._spill import Notes
from holdfast.text import normalise

T = TypeVar("T", bound=tuple[str, ...])
K = TypeVar("K", bound=Hashable)

EXAMPLES = 5
"""Ids kept as examples of a finding."""
COMMON_ROWS = 5
COMMON_SHARE = 0.01
"""From this many rows and this share on, something is a trait of the data, not an accident."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A row that a finding concerns, and why."""

    detector: str
    row: str
    """Its id."""
    cue: str = ""
    """What was matched in it."""
    group: int | None = None
    """Rows of one group repeat one another."""

    def to_json(self) -> dict[str, Any]:
        """As stored: without what is not known."""
        return {name: value for name, value in asdict(self).items() if value not in ("", None)}


class Tally:
    """A count of rows; the ids of a few of them, and of all of them on disk."""

    __slots__ = ("_all", "_ids", "count")

    def __init__(self) -> None:
        self.count = 0
        self._ids: list[tuple[int, str]] = []
        self._all = Notes()

    def add(self, row_id: str, cue: str = "") -> None:
        """Count a row, and what was matched. The ids with the smallest hashes are examples."""
        self.count += 1
        self._all.add(row_id, cue)
        entry = (hash64(row_id), row_id)
        if len(self._ids) < EXAMPLES or entry < self._ids[-1]:
            self._ids = sorted([*self._ids, entry])[:EXAMPLES]

    def take(self, other: Tally) -> None:
        """Add what another tally counted."""
        self.count += other.count
        self._ids = sorted([*self._ids, *other._ids])[:EXAMPLES]
        self._all.take(other._all)

    def evidence(self, detector: str, cue: str = "") -> Iterator[Evidence]:
        """Every row counted; `cue` stands where none was given with the row."""
        for row_id, matched in self._all:
            yield Evidence(detector, row_id, matched or cue)

    @property
    def examples(self) -> tuple[str, ...]:
        """At most five ids."""
        return tuple(row_id for _, row_id in self._ids)


class Sample(Generic[T]):
    """The values whose keys have the smallest hashes: at most `size`, of at most `chars` in all."""

    def __init__(self, size: int, chars: int = 8_000_000) -> None:
        self.size = size
        self.chars = chars
        self.seen = 0
        self._held = 0
        self._floor: tuple[int, T] | None = None
        self._heap: list[tuple[int, T]] = []

    def see(self, key: str, value: T) -> None:
        """Consider one value."""
        self.seen += 1
        self._consider((-hash64(key), value))
        self._cut()

    def _consider(self, entry: tuple[int, T]) -> None:
        if self._floor is None or entry > self._floor:
            heapq.heappush(self._heap, entry)
            self._held += _length(entry[1])

    def _cut(self) -> None:
        """Drop what lies below the floor, and raise the floor until the rest fits."""
        while self._heap and self._floor is not None and self._heap[0] <= self._floor:
            self._held -= _length(heapq.heappop(self._heap)[1])
        while len(self._heap) > self.size or (self._held > self.chars and len(self._heap) > 1):
            self._floor = heapq.heappop(self._heap)
            self._held -= _length(self._floor[1])

    def take(self, other: Sample[T]) -> None:
        """Consider what another sample saw."""
        self.seen += other.seen
        if other._floor is not None:
            self._floor = max(self._floor or other._floor, other._floor)
        for entry in other._heap:
            self._consider(entry)
        self._cut()

    def values(self) -> list[T]:
        """The sample, in an order of its own."""
        return [value for _, value in sorted(self._heap, reverse=True)]

    def scaled(self, count: int) -> int:
        """What a count within the sample stands for among all values seen."""
        return round(count * self.seen / len(self._heap)) if self._heap else 0

    @property
    def note(self) -> str:
        """A sentence saying that counts are estimates; empty where all values were looked at."""
        if self.seen == len(self._heap):
            return ""
        return f" Counts are estimated from {rows(len(self._heap))}."


def add_counts(mine: MutableMapping[str, int], others: Mapping[str, int]) -> None:
    """Add counts to counts, name by name."""
    for name, count in others.items():
        mine[name] = mine.get(name, 0) + count


def add_tallies(mine: MutableMapping[K, Tally], others: Mapping[K, Tally]) -> None:
    """Add tallies to tallies, name by name."""
    for name, tally in others.items():
        mine.setdefault(name, Tally()).take(tally)


def _length(value: tuple[str, ...]) -> int:
    return sum(map(len, value))


def hash64(text: str) -> int:
    """A 64-bit content hash, the same in every process."""
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest())


def fold(text: str) -> str:
    """`text.normalise`, with short cuts for plain text and for texts seen just now."""
    return _recent(text) if len(text) <= _RECENT_CHARS else _fold(text)


def _fold(text: str) -> str:
    if text.isascii():
        return " ".join(text.lower().replace("`", "'").split())
    return normalise(text)


_recent = lru_cache(maxsize=16)(_fold)
"""Several detectors fold the same texts of a row."""
_RECENT_CHARS = 4000


def common(count: int, total: int) -> bool:
    """Whether so many rows make a trait of the data."""
    return count >= COMMON_ROWS and count >= COMMON_SHARE * total


def percent(count: int, total: int) -> str:
    """For example `12 %`, `0.4 %` or `< 0.1 %`."""
    share = 100 * count / total if total else 0.0
    if count and share < 0.1:
        return "< 0.1 %"
    digits = 0 if share >= 10 or count == 0 else 1
    text = f"{share:.{digits}f}"
    return "> 99 %" if text == "100" and count < total else f"{text} %"


def rows(count: int) -> str:
    """`1 row` or `2,000 rows`."""
    return f"{count:,} row" if count == 1 else f"{count:,} rows"


def quoted(text: str, width: int = 40) -> str:
    """A short piece of text in quotes, on one line, fit to be printed."""
    shown = text if len(text) <= width else text[: width - 1] + "…"
    plain = "".join(char if char.isprintable() else " " for char in shown)
    return f'"{plain}"'
