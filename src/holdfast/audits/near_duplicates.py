"""Detector `near_duplicates`: rows that say nearly what another row says.

Likeness is that of `holdfast.near`: the Jaccard index of the words of two rows, each weighted by
its rarity in the data, so that a wrapper that all rows share makes no two of them alike. How rare a
word is shows only after the last row; until then each row's word hashes lie in a temporary file,
and 5 bytes a row are held. Only rows that share a rare word are ever compared (prefix filter,
Chaudhuri, Ganti & Kaushik, ICDE 2006).
"""

from __future__ import annotations

import math
import re
import tempfile
import weakref
import zlib
from array import array
from collections.abc import Iterator
from itertools import islice

import numpy as np

from holdfast.audits import AUDITS
from holdfast.audits._evidence import EXAMPLES, common, fold, hash64
from holdfast.types import Conversation, Finding

LIKE = 0.8
"""Weighted Jaccard index from which on two rows are near duplicates."""

_WORD = re.compile(r"\w+")
_CHARS = 4000
_ID_BYTES = 32
_BUCKETS = 1 << 20
"""Counters of word frequencies; words that share one are taken to be a little commoner."""
_CHUNK_ROWS = 4096
_NEIGHBOURS = 16
"""Rows that a row is compared with, of those that share one rare word: the next ones in weight."""


@AUDITS.register("near_duplicates")
class NearDuplicates:
    """Rows that repeat another row but for a few words."""

    def __init__(self) -> None:
        self._words = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the detector)
        self._ids = tempfile.TemporaryFile()  # noqa: SIM115
        for file in (self._words, self._ids):
            weakref.finalize(self, file.close)
        self._sizes = array("H")
        self._id_sizes = array("B")

    def see(self, row: Conversation) -> None:
        """Write the row's content hash and the hashes of its words to the file."""
        text = fold(f"{row.request[:_CHARS]}\n{row.reply[:_CHARS]}")
        words = {word.encode("utf-8", "surrogatepass") for word in _WORD.findall(text)}
        hashes = array("I", sorted(map(zlib.crc32, words)))
        self._words.write(hash64(text).to_bytes(8, "little") + hashes.tobytes())
        self._sizes.append(len(hashes))
        name = row.id.encode("utf-8", "surrogatepass")[:_ID_BYTES]
        self._ids.write(name)
        self._id_sizes.append(len(name))

    def findings(self) -> list[Finding]:
        """One finding: how many rows nearly repeat another."""
        total = len(self._sizes)
        near = self._near() if total else []
        if not near:
            return []
        extra = sum(len(group) - 1 for group in near)
        return [
            Finding(
                detector="near_duplicates",
                severity="low" if common(extra, total) else "info",
                title=f"rows that nearly repeat another (in {len(near):,} groups)",
                count=extra,
                total=total,
                examples=self._examples(near),
                why=(
                    "Rows that differ in a word or two weigh in training like copies; split over "
                    "training and a test set, they flatter the result."
                ),
                cure="Keep one of each group, unless the weight is wanted.",
            )
        ]

    def _near(self) -> list[list[int]]:
        """Groups of rows that are alike, each content once."""
        self._words.flush()
        data = np.memmap(self._words, dtype=np.uint32, mode="r")
        sizes = np.array(self._sizes, dtype=np.int64)
        starts = np.concatenate(([0], np.cumsum(sizes + 2)[:-1])) + 2
        rows = _Rows(data, starts, sizes)
        groups = _Groups()
        for one, other in rows.candidates():
            if not groups.together(one, other) and rows.likeness(one, other) >= LIKE:
                groups.join(one, other)
        distinct = (
            list({rows.content(row): row for row in sorted(group, reverse=True)}.values())
            for group in groups.all()
        )
        return [group for group in distinct if len(group) > 1]

    def _examples(self, near: list[list[int]]) -> tuple[str, ...]:
        """Ids of rows in the groups that come first by the hash of their ids."""
        ends = np.cumsum(np.array(self._id_sizes, dtype=np.int64))
        named = []
        for group in islice(near, 1000):
            ids = sorted(self._id(int(ends[row]), self._id_sizes[row]) for row in group)
            named.append((hash64(ids[0]), ids))
        self._ids.seek(0, 2)
        return tuple([name for _, ids in sorted(named) for name in ids][:EXAMPLES])

    def _id(self, end: int, size: int) -> str:
        self._ids.seek(end - size)
        return self._ids.read(size).decode("utf-8", "replace")


class _Rows:
    """The rows' word hashes on disk, and how rare each word is.

    Args:
        data: uint32; per row its content hash (2) and its distinct words' hashes, ascending.
        starts: where each row's words begin.
        sizes: how many they are.
    """

    def __init__(self, data: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> None:
        self.data = data
        self.starts = starts
        self.sizes = sizes
        counts = np.zeros(_BUCKETS, dtype=np.int64)
        for _, words in self._chunks():
            counts += np.bincount(words & (_BUCKETS - 1), minlength=_BUCKETS)
        self._shared = counts > 1
        self._rarity = np.log1p(len(sizes) / np.maximum(counts, 1)).astype(np.float32)

    def _chunks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Row number of each word, and the words."""
        for first in range(0, len(self.sizes), _CHUNK_ROWS):
            sizes = self.sizes[first : first + _CHUNK_ROWS]
            numbers = np.repeat(np.arange(first, first + len(sizes)), sizes)
            words = [self.words(row) for row in range(first, first + len(sizes))]
            yield numbers, np.concatenate(words) if words else np.zeros(0, np.uint32)

    def words(self, row: int) -> np.ndarray:
        """The hashes of a row's words, ascending."""
        start = self.starts[row]
        return self.data[start : start + self.sizes[row]]

    def content(self, row: int) -> bytes:
        """What tells two contents apart."""
        start = self.starts[row]
        return bytes(self.data[start - 2 : start].tobytes())

    def weight(self, words: np.ndarray) -> np.ndarray:
        """How rare each word is."""
        return np.asarray(self._rarity[words & (_BUCKETS - 1)])

    def likeness(self, one: int, other: int) -> float:
        """The weighted Jaccard index of two rows."""
        a, b = self.words(one), self.words(other)
        shared = math.fsum(self.weight(np.intersect1d(a, b, assume_unique=True)))
        every = math.fsum(self.weight(a)) + math.fsum(self.weight(b)) - shared
        return shared / every if every else 0.0

    def candidates(self) -> Iterator[tuple[int, int]]:
        """Pairs of rows that share a word of both prefixes, near each other in weight."""
        found = [self._prefixes(*chunk) for chunk in self._chunks()]
        columns = (np.concatenate(column) for column in zip(*found, strict=True))
        words, rows, weights, contents = columns
        order = np.lexsort((contents, weights, words))
        words, rows, weights = words[order], rows[order], weights[order]
        for step in range(1, _NEIGHBOURS + 1):
            same = words[step:] == words[:-step]
            alike = same & (weights[:-step] >= LIKE * weights[step:] - 1e-4)
            for at in np.flatnonzero(alike):
                yield int(rows[at]), int(rows[at + step])
            if not same.any():
                return

    def _prefixes(
        self, numbers: np.ndarray, words: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of each row the rarest words, such that those left out cannot reach the threshold."""
        weights = self.weight(words).astype(np.float64)
        order = np.lexsort((words, -weights, numbers))
        numbers, words, weights = numbers[order], words[order], weights[order]
        before = np.cumsum(weights) - weights
        inside = before - before[np.searchsorted(numbers, numbers)]
        nth = numbers - (numbers[0] if len(numbers) else 0)
        whole = np.bincount(nth, weights)[nth]
        chosen = (inside <= (1 - LIKE) * whole + 1e-6) & self._shared[words & (_BUCKETS - 1)]
        rows = numbers[chosen]
        contents = np.asarray(self.data[self.starts[rows] - 2])
        return words[chosen], rows.astype(np.uint32), whole[chosen].astype(np.float32), contents


class _Groups:
    """Rows joined into groups (union-find)."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def _root(self, row: int) -> int:
        root = row
        while (parent := self._parent.get(root, root)) != root:
            root = parent
        while row != root:
            row, self._parent[row] = self._parent.get(row, row), root
        return root

    def together(self, one: int, other: int) -> bool:
        """Whether two rows are in one group already."""
        return self._root(one) == self._root(other)

    def join(self, one: int, other: int) -> None:
        """Make one group of two."""
        a, b = sorted((self._root(one), self._root(other)))
        self._parent[b] = a
        self._parent.setdefault(a, a)

    def all(self) -> list[list[int]]:
        """The groups, in the order of their first rows."""
        found: dict[int, list[int]] = {}
        for row in sorted(self._parent):
            found.setdefault(self._root(row), []).append(row)
        return list(found.values())
