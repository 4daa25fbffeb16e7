"""Near duplicates: which known text a text repeats, wholly, in part or nearly.

Likeness is the Jaccard index over the words of two texts, each word weighted by its rarity among
the known texts (inverse document frequency): "how do I ... a ..." counts for little, what is asked
about counts for much. Weighted Jaccard with the prefix filter of set-similarity joins (Chaudhuri,
Ganti & Kaushik, ICDE 2006; Bayardo, Ma & Srikant, WWW 2007): the result is exact, the same in any
order, and only texts that share a rare word are ever compared, so time grows with the number of
texts looked up, not with its product with the number of known ones.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from holdfast.text import normalise, words_of

THRESHOLD = 0.5
"""Likeness from which on two requests count as near duplicates: on published evaluation sets,
pairs above it ask for the same thing in other words."""

SHORTEST_INSIDE = 5
"""Words that a known text must have for its occurrence inside a longer text to mean anything."""

Kind = Literal["exact", "contains", "near"]


@dataclass(frozen=True, slots=True)
class Match:
    """The known text that a text repeats."""

    name: str
    kind: Kind
    """`exact`: the same but for case, spacing and typography. `contains`: the known text stands
    word for word inside the longer one. `near`: as alike as the threshold asks."""
    likeness: float
    """Weighted Jaccard index, 0 to 1; 1 for `exact` and `contains`."""

    @property
    def reason(self) -> str:
        """For the list of rows set aside."""
        if self.kind == "exact":
            return f"also asked in evaluation ({self.name})"
        if self.kind == "contains":
            return f"contains an evaluation item ({self.name})"
        return f"near duplicate of an evaluation item ({self.name}, likeness {self.likeness:.2f})"


@dataclass(frozen=True, slots=True)
class _Known:
    """One text of the index."""

    name: str
    words: frozenset[str]
    weight: float
    phrase: str
    """Its words in order, with a space at both ends."""


class NearIndex:
    """Known texts, to look others up in.

    Args:
        texts: name and text of each; where two texts are the same, the smaller name stands.
        threshold: least likeness of a near duplicate, above 0 and up to 1; 1: the same words.

    Raises:
        ValueError: a threshold out of range.
    """

    def __init__(self, texts: Iterable[tuple[str, str]], threshold: float = THRESHOLD) -> None:
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold is {threshold}, expected more than 0 and at most 1")
        self.threshold = threshold
        first: dict[str, str] = {}
        for name, text in texts:
            key = normalise(text)
            if key:
                first[key] = min(name, first.get(key, name))
        self._exact: Mapping[str, str] = first
        spoken = {name: words_of(text) for text, name in sorted(first.items())}
        self._count = len(spoken)
        self._frequency = Counter(word for said in spoken.values() for word in set(said))
        self._weights = {w: math.log(1 + self._count / n) for w, n in self._frequency.items()}
        self._inside: dict[str, list[_Known]] = defaultdict(list)
        self._by_word: dict[str, list[_Known]] = defaultdict(list)
        for name, said in sorted(spoken.items()):
            if said:
                self._add(name, said)

    def _add(self, name: str, said: list[str]) -> None:
        bag = frozenset(said)
        known = _Known(name, bag, self._weight_of(bag), f" {' '.join(said)} ")
        if len(said) >= SHORTEST_INSIDE:
            self._inside[self._by_rarity(bag)[0]].append(known)
        for word in self._prefix(bag, known.weight):
            self._by_word[word].append(known)

    def __len__(self) -> int:
        """Distinct known texts."""
        return len(self._exact)

    def find(self, text: str) -> Match | None:
        """The known text that `text` repeats most closely, or None.

        An exact repetition goes before a contained one, that before a near one; among equals the
        smallest name stands.
        """
        plain = normalise(text)
        same = self._exact.get(plain)
        if same is not None:
            return Match(same, "exact", 1.0)
        said = words_of(plain)
        if not said:
            return None
        return self._contained(said) or self._nearest(frozenset(said))

    def _contained(self, said: list[str]) -> Match | None:
        phrase = f" {' '.join(said)} "
        found = [
            known.name
            for word in set(said) & self._inside.keys()
            for known in self._inside[word]
            if known.phrase in phrase
        ]
        return Match(min(found), "contains", 1.0) if found else None

    def _nearest(self, bag: frozenset[str]) -> Match | None:
        weight = self._weight_of(bag)
        least, most = self.threshold * weight - 1e-9, weight / self.threshold + 1e-9
        candidates = {
            known.name: known
            for word in self._prefix(bag, weight)
            for known in self._by_word.get(word, ())
            if least <= known.weight <= most
        }
        best: tuple[float, str] | None = None
        for name, known in sorted(candidates.items()):
            shared = self._weight_of(bag & known.words)
            likeness = shared / (weight + known.weight - shared)
            if likeness >= self.threshold and (best is None or likeness > best[0]):
                best = likeness, name
        return Match(best[1], "near", best[0]) if best else None

    def _weight(self, word: str) -> float:
        """Rarity among the known texts; a word that none of them has is as rare as can be."""
        found = self._weights.get(word)
        return math.log(1 + self._count) if found is None else found

    def _weight_of(self, bag: frozenset[str]) -> float:
        # Exact summation: the order of a set of strings differs from process to process.
        return math.fsum(map(self._weight, bag))

    def _by_rarity(self, bag: Iterable[str]) -> list[str]:
        return sorted(bag, key=lambda word: (self._frequency.get(word, 0), word))

    def _prefix(self, bag: frozenset[str], weight: float) -> list[str]:
        """The rarest words, such that those left out could never reach the threshold.

        Two sets that are alike enough share at least `threshold` of the weight of either; their
        rarest shared word therefore stands in the prefix of both.
        """
        prefix, rest = [], weight
        for word in self._by_rarity(bag):
            if rest < self.threshold * weight - 1e-9:
                break
            prefix.append(word)
            rest -= self._weight(word)
        return prefix
