"""Detector `near_duplicates`: rows that say nearly what another row says.

Likeness is that of `holdfast.rows.near`: the Jaccard index of the words of two rows, each weighted
by its rarity in the data, so that a wrapper that all rows share makes no two of them alike. How
rare a word is shows only after the last row; until then the hashes of each row's words lie in a
temporary file. Then, exactly and in time that grows with the words:

    rarest words of each row → rows that share one → bound on their likeness → likeness → groups

Only rows that share one of their rarest words can be alike (prefix filter, Chaudhuri, Ganti &
Kaushik, ICDE 2006), and only those whose weights, summed into a few bins, overlap enough (bitmap
filter, Sandes et al. 2020, with weights in place of bits). Weights are whole numbers, so that sums
are the same in any order of the rows.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from holdfast.audits import AUDITS
from holdfast.audits._evidence import EXAMPLES, Evidence, common, fold, hash64
from holdfast.audits._spill import RowIds, Spill
from holdfast.audits._words import MOST_BYTES, as_words, word_hashes
from holdfast.types import Conversation, Finding

LIKE = 0.8
"""Weighted Jaccard index from which on two rows are near duplicates."""

_CHARS = 4000
_BUCKET_BITS = 20
_BUCKETS = 1 << _BUCKET_BITS
"""Counters of word frequencies; words that share one are taken to be a little commoner."""
_UNIT = 1 << 14
"""Weights are counted in this fraction of a natural logarithm."""
_BINS = 16
_CHUNK_WORDS = 1 << 17
_PART_WORDS = 1 << 19
_MOST_PARTS = 256
_SLICE = 1 << 15
_VERIFIED = 1024
_NEIGHBOURS = 16
"""Rows that a row is compared with, of those that share one rare word: the next ones in weight."""


@AUDITS.register("near_duplicates")
class NearDuplicates:
    """Rows that repeat another row but for a few words."""

    def __init__(self) -> None:
        self._words, self._contents = Spill(), Spill()
        self._sizes = array("H")
        self._ids = RowIds()
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._done: tuple[int, _Groups] | None = None

    def see(self, row: Conversation) -> None:
        """Write the row's content hash and the hashes of its words to disk."""
        text = f"{fold(row.request[:_CHARS])}\n{fold(row.reply[:_CHARS])}"
        self._contents.write(hash64(text).to_bytes(8, "little"))
        self._ids.add(row.id)
        words = as_words(text)[: MOST_BYTES - 1]
        if self._waiting_bytes + len(words) + 1 > MOST_BYTES:
            self._hash()
        self._waiting.append(words)
        self._waiting_bytes += len(words) + 1

    def _hash(self) -> None:
        if self._waiting:
            counts, hashes = word_hashes(self._waiting)
            self._sizes.extend(counts.tolist())
            self._words.write(hashes.astype("<u4").tobytes())
            self._waiting, self._waiting_bytes = [], 0

    def take(self, other: NearDuplicates) -> None:
        """Add the rows that another one saw."""
        self._hash()
        other._hash()
        self._words.take(other._words)
        self._contents.take(other._contents)
        self._sizes += other._sizes
        self._ids.take(other._ids)

    def __getstate__(self) -> dict[str, object]:
        self._hash()
        return self.__dict__

    def findings(self) -> list[Finding]:
        """One finding: how many rows nearly repeat another."""
        groups, total = self._grouped(), len(self._ids)
        if not groups.extra:
            return []
        return [
            Finding(
                detector="near_duplicates",
                severity="low" if common(groups.extra, total) else "info",
                title=f"rows that nearly repeat another (in {groups.count:,} groups)",
                count=groups.extra,
                total=total,
                examples=self._examples(groups),
                why=(
                    "Rows that differ in a word or two weigh in training like copies: trained "
                    "without either, models gave memorised text ten times less often, and fewer "
                    "test items were known to them (Lee et al. 2022, arXiv 2107.06499)."
                ),
                cure=(
                    "Keep one row of each group in the evidence file (`--output`), unless the "
                    "weight is wanted."
                ),
            )
        ]

    def evidence(self) -> Iterator[Evidence]:
        """All rows of every group, in the order they came."""
        groups = self._grouped()
        for row_id, group in zip(self._ids.of(groups.rows), groups.numbers, strict=True):
            yield Evidence("near_duplicates", row_id, group=int(group))

    def _grouped(self) -> _Groups:
        """Found once for the rows seen so far."""
        self._hash()
        total = len(self._sizes)
        if self._done is None or self._done[0] != total:
            self._done = total, self._groups() if total else _Groups()
        return self._done[1]

    def _groups(self) -> _Groups:
        sizes = np.frombuffer(self._sizes, dtype=np.uint16)
        rows = _Rows(self._words, sizes)
        parents = _Parents(len(sizes))
        for ones, others in rows.candidates(self._contents.view("<u8")):
            for at in range(0, len(ones), _VERIFIED):
                one, other = ones[at : at + _VERIFIED], others[at : at + _VERIFIED]
                apart = parents.roots(one) != parents.roots(other)
                one, other = one[apart], other[apart]
                alike = rows.alike(one, other)
                parents.join(one[alike], other[alike])
        del rows
        return _Groups.of(parents.all_roots(), self._contents.view("<u8"))

    def _examples(self, groups: _Groups) -> tuple[str, ...]:
        """Ids of rows in the groups with the smallest content hashes."""
        first = [groups.rows[groups.numbers == number] for number in range(EXAMPLES)]
        named = (self._ids.smallest(rows, EXAMPLES) for rows in first)
        return tuple([name for names in named for name in names][:EXAMPLES])


@dataclass(frozen=True, slots=True)
class _Groups:
    """Rows that are alike."""

    count: int = 0
    extra: int = 0
    """Rows that add nothing new to their group."""
    rows: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.uint32))
    """The rows of all groups, ascending."""
    numbers: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.uint32))
    """The group of each of them; 0 is the one with the smallest content hash."""

    @classmethod
    def of(cls, roots: np.ndarray, contents: np.ndarray) -> _Groups:
        """Groups of rows of several contents.

        Args:
            roots: of each row, one row of its group.
            contents: of each row, what tells its content apart.
        """
        joined = roots != np.arange(len(roots), dtype=roots.dtype)
        joined[roots[joined]] = True
        members = np.flatnonzero(joined)
        if not len(members):
            return cls()
        members = members[np.lexsort((members, contents[members], roots[members]))]
        where, what = roots[members], contents[members]
        starts = np.flatnonzero(np.append(True, where[1:] != where[:-1]))
        new = np.append(True, (where[1:] != where[:-1]) | (what[1:] != what[:-1]))
        distinct = np.add.reduceat(new, starts, dtype=np.int64)
        several = np.flatnonzero(distinct > 1)
        numbers = np.full(len(starts), len(starts), dtype=np.uint32)  # of one content: no group
        numbers[several[np.argsort(what[starts[several]], kind="stable")]] = np.arange(len(several))
        of_member = np.repeat(numbers, np.diff(starts, append=len(members)))
        grouped = np.flatnonzero(of_member < len(starts))
        grouped = grouped[np.argsort(members[grouped])]
        extra = int((distinct[several] - 1).sum())
        return cls(len(several), extra, members[grouped].astype(np.uint32), of_member[grouped])


class _Rows:
    """The rows' word hashes on disk, and how rare each word is.

    Args:
        words: uint32; each row's distinct words' hashes, ascending.
        sizes: how many they are.
    """

    def __init__(self, words: Spill, sizes: np.ndarray) -> None:
        self._words = words
        self._hashes = words.view("<u4")
        self._ends = np.cumsum(sizes, dtype=np.int64)
        self._sizes = sizes
        counts = np.zeros(_BUCKETS, dtype=np.int64)
        for first, last in self._chunks():
            buckets = self._span(first, last) & np.uint32(_BUCKETS - 1)
            counts += np.bincount(buckets, minlength=_BUCKETS)
        used = np.flatnonzero(counts)
        self._by_rank = used[np.argsort(counts[used], kind="stable")].astype(np.uint32)
        self._rank = np.zeros(_BUCKETS, dtype=np.uint32)
        self._rank[self._by_rank] = np.arange(len(used), dtype=np.uint32)
        self._weight = np.zeros(_BUCKETS, dtype=np.uint32)
        self._weight[used] = np.rint(np.log1p(len(sizes) / counts[used]) * _UNIT)
        self._shared = counts > 1
        self._whole = np.zeros(len(sizes), dtype=np.uint32)
        self._bins = Spill()

    def _chunks(self) -> Iterator[tuple[int, int]]:
        """Ranges of rows that have so many words together, each of at least one row."""
        first, rows = 0, len(self._sizes)
        while first < rows:
            seen = self._ends[first - 1] if first else 0
            last = int(np.searchsorted(self._ends, seen + _CHUNK_WORDS, side="right"))
            last = max(last, first + 1)
            yield first, last
            self._words.release()
            first = last

    def _span(self, first: int, last: int) -> np.ndarray:
        start = self._ends[first - 1] if first else 0
        return self._hashes[start : self._ends[last - 1]]

    def alike(self, ones: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Whether each pair reaches the likeness: (pairs,) bool."""
        keys = np.concatenate([self._paired(ones), self._paired(others)])
        keys.sort()
        shared = keys[1:][keys[1:] == keys[:-1]]
        weights = self._weight[(shared & np.uint64(_BUCKETS - 1)).astype(np.int64)]
        pairs = (shared >> np.uint64(32)).astype(np.int64)
        overlap = np.bincount(pairs, weights, minlength=len(ones))
        every = self._whole[ones].astype(np.float64) + self._whole[others] - overlap
        return np.asarray((overlap >= LIKE * every) & (every > 0))

    def _paired(self, rows: np.ndarray) -> np.ndarray:
        """Words of rows, each with the place of its row before it."""
        sizes = self._sizes[rows].astype(np.int64)
        places = np.repeat(np.arange(len(rows)), sizes)
        before = np.cumsum(sizes) - sizes
        starts = self._ends[rows] - sizes
        at = np.arange(len(places)) - before[places] + starts[places]
        return np.asarray(places.astype(np.uint64) << np.uint64(32) | self._hashes[at])

    def candidates(self, contents: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs of rows that share a word of both prefixes and may reach the likeness."""
        parts = 1 + min(len(self._hashes) // _PART_WORDS, _MOST_PARTS - 1)
        runs = _Runs(parts)
        for first, last in self._chunks():
            rows, words = self._prefixes(first, last)
            tuples = (words, rows, self._whole[rows], contents[rows] >> np.uint64(32))
            runs.add(words % np.uint32(parts), np.stack(tuples, axis=1).astype(np.uint32))
        bins = self._bins.view(np.uint8).reshape(-1, _BINS)
        for part in range(parts):
            for ones, others in _neighbours(runs.read(part)):
                near = self._may_be_alike(bins, ones, others)
                yield ones[near], others[near]
                self._bins.release()
                self._words.release()

    def _may_be_alike(self, bins: np.ndarray, ones: np.ndarray, others: np.ndarray) -> np.ndarray:
        """What shared weight the bins leave possible reaches the likeness."""
        one, other = (self._whole[rows].astype(np.float32) for rows in (ones, others))
        most = np.minimum(bins[ones] * one[:, None], bins[others] * other[:, None]).sum(axis=1)
        return np.asarray(most * (1 + LIKE) >= 255 * LIKE * (one + other) * (1 - 1e-5))

    def _prefixes(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each row the rarest words, such that those left out cannot reach the threshold.

        Of equally rare words those of the first bucket come first, in every row.
        """
        hashes = self._span(first, last)
        nth = np.repeat(np.arange(last - first), self._sizes[first:last])
        buckets = hashes & np.uint32(_BUCKETS - 1)
        keys = (nth.astype(np.uint64) << np.uint64(32)) | (
            self._rank[buckets].astype(np.uint64) << np.uint64(12)
        )
        keys |= hashes >> np.uint32(_BUCKET_BITS)
        keys.sort()
        buckets = self._by_rank[(keys >> np.uint64(12)).astype(np.int64) & (_BUCKETS - 1)]
        weights = self._weight[buckets].astype(np.int64)
        whole = np.bincount(nth, weights, minlength=last - first).astype(np.int64)
        self._whole[first:last] = whole
        self._bin(nth, buckets, weights, whole)
        before = np.cumsum(weights) - weights
        inside = before - (np.cumsum(whole) - whole)[nth]
        chosen = (inside <= (1 - LIKE) * whole[nth] + 1e-6) & self._shared[buckets]
        words = (keys[chosen] << np.uint64(_BUCKET_BITS)).astype(np.uint32) | buckets[chosen]
        return nth[chosen] + first, words

    def _bin(
        self, nth: np.ndarray, buckets: np.ndarray, weights: np.ndarray, whole: np.ndarray
    ) -> None:
        """Store how each row's weight is spread over the bins, in 255ths rounded up."""
        sums = np.bincount(nth * _BINS + buckets % _BINS, weights, minlength=len(whole) * _BINS)
        shares = 255 * sums.reshape(-1, _BINS) / np.maximum(whole, 1)[:, None]
        self._bins.write(np.ceil(shares).astype(np.uint8).tobytes())


class _Runs:
    """Tuples on disk, to be read back part by part."""

    def __init__(self, parts: int) -> None:
        self._parts = parts
        self._spill = Spill()
        self._counts: list[np.ndarray] = []

    def add(self, part: np.ndarray, tuples: np.ndarray) -> None:
        """Store tuples (N, 4), each in its part."""
        self._spill.write(tuples[np.argsort(part, kind="stable")].tobytes())
        self._counts.append(np.bincount(part, minlength=self._parts).astype(np.uint32))

    def read(self, part: int) -> np.ndarray:
        """All tuples of a part."""
        data = self._spill.view(np.uint32).reshape(-1, 4)
        found, start = [np.empty((0, 4), dtype=np.uint32)], 0
        for counts in self._counts:
            at = start + int(counts[:part].sum())
            found.append(data[at : at + int(counts[part])])
            start += int(counts.sum())
        tuples = np.concatenate(found)
        del data
        self._spill.release()
        return tuples


def _neighbours(tuples: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows that share a word, each with the next ones in weight that may be alike."""
    words, rows, whole, _ = tuples[np.lexsort((tuples[:, 3], tuples[:, 2], tuples[:, 0]))].T
    rows = rows.astype(np.int64)
    for step in range(1, _NEIGHBOURS + 1):
        same = words[step:] == words[:-step]
        if not same.any():
            return
        found = np.flatnonzero(same & (whole[:-step] >= LIKE * whole[step:] - 1e-6))
        for at in range(0, len(found), _SLICE):
            some = found[at : at + _SLICE]
            yield rows[some], rows[some + step]


class _Parents:
    """Rows joined into groups (union-find)."""

    def __init__(self, rows: int) -> None:
        self._parent = np.arange(rows, dtype=np.uint32)

    def roots(self, rows: np.ndarray) -> np.ndarray:
        """One row of each row's group."""
        found = self._parent[rows]
        while True:
            above = self._parent[found]
            if np.array_equal(above, found):
                self._parent[rows] = found
                return np.asarray(found)
            found = above

    def join(self, ones: np.ndarray, others: np.ndarray) -> None:
        """Make one group of each pair."""
        for one, other in zip(ones.tolist(), others.tolist(), strict=True):
            a, b = sorted((self._root(one), self._root(other)))
            self._parent[b] = a

    def _root(self, row: int) -> int:
        while (parent := int(self._parent[row])) != row:
            self._parent[row] = self._parent[parent]
            row = parent
        return row

    def all_roots(self) -> np.ndarray:
        """One row of every row's group."""
        for first in range(0, len(self._parent), _SLICE):
            self.roots(np.arange(first, min(first + _SLICE, len(self._parent))))
        return self._parent
