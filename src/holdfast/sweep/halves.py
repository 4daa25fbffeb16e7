"""Halves: items split into a selection half and a confirmation half that share nothing.

A dose chosen on some probes looks better on them than it is, so it is confirmed on others. The
halves are balanced in every task and category; items that are nearly one question (near duplicates,
and the two of a contrast pair) go to the same half, or the halves would not be independent. The
split depends on seed and content alone.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from holdfast.text import words
from holdfast.types import Item

NEAR = 0.9
"""Jaccard similarity of word sets from which two requests are near duplicates."""

TWINS: Mapping[str, str] = {
    "xstest-unsafe": "xstest-safe",
    "i-physical-unsafe": "i-physical-safe",
    "lab-forbidden": "lab-lookalike",
}
"""Tasks whose items are contrast pairs: one asks for harm, the other only looks like it."""

_BLOCK = 25
"""XSTest numbers its prompts in blocks of 25 of one type; number n of a type contrasts with number
n of its contrast type (24 or 25 of 25 share their focus word in each type)."""


@dataclass(frozen=True, slots=True)
class Halves:
    """Two sets of items without anything in common."""

    selection: tuple[Item, ...]
    confirmation: tuple[Item, ...]


def halves(items: Sequence[Item], seed: int) -> Halves:
    """Split items in two, balanced in task × category, groups kept whole."""
    groups = sorted(group_items(items), key=lambda g: (-len(g.positions), _rank(g, seed)))
    lead: Counter[tuple[str, str]] = Counter()  # how far the first half is ahead, per stratum
    ahead: Counter[str] = Counter()  # and per task, where the strata leave a choice
    first: set[int] = set()
    for group in groups:
        strata = Counter((items[i].task, items[i].category) for i in group.positions)
        tasks = Counter(items[i].task for i in group.positions)
        pull = (
            sum(lead[s] * n for s, n in strata.items()),
            sum(ahead[t] * n for t, n in tasks.items()),
            _rank(group, seed) % 2 * 2 - 1,
        )
        sign = -1 if next(p for p in pull if p) > 0 else 1
        if sign > 0:
            first.update(group.positions)
        for s, n in strata.items():
            lead[s] += sign * n
        for t, n in tasks.items():
            ahead[t] += sign * n
    return Halves(
        tuple(item for i, item in enumerate(items) if i in first),
        tuple(item for i, item in enumerate(items) if i not in first),
    )


@dataclass(frozen=True, slots=True)
class Group:
    """Items that belong together."""

    positions: tuple[int, ...]
    name: str
    """Identifies the group, whatever the order of the items."""


def group_items(items: Sequence[Item]) -> list[Group]:
    """Items that must not be parted: near duplicates and contrast pairs, chained."""
    parent = list(range(len(items)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b in [*_near_duplicates(items), *_contrasts(items)]:
        parent[root(a)] = root(b)
    members: dict[int, list[int]] = {}
    for i in range(len(items)):
        members.setdefault(root(i), []).append(i)
    return [
        Group(tuple(positions), min(f"{items[i].task}/{items[i].id}" for i in positions))
        for positions in members.values()
    ]


def _rank(group: Group, seed: int) -> int:
    text = f"{seed}\0{group.name}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())


# --- near duplicates ------------------------------------------------------------------------------


def _near_duplicates(items: Sequence[Item]) -> Iterable[tuple[int, int]]:
    """Pairs whose word sets overlap by `NEAR`, found by prefix filtering.

    Two sets that similar share one of their rarest (1 - NEAR)·n + 1 words, so only items that meet
    in such a word are compared (Chaudhuri, Ganti & Kaushik, ICDE 2006).
    """
    sets = [frozenset(words(item.request)) for item in items]
    times = Counter(word for found in sets for word in found)
    meet: dict[str, list[int]] = {}
    for i, found in enumerate(sets):
        rare = sorted(found, key=lambda word: (times[word], word))
        seen: set[int] = set()
        for word in rare[: len(found) - math.ceil(NEAR * len(found)) + 1]:
            for j in meet.setdefault(word, []):
                if j not in seen and _alike(found, sets[j]):
                    yield i, j
                seen.add(j)
            meet[word].append(i)


def _alike(a: frozenset[str], b: frozenset[str]) -> bool:
    shared = len(a & b)
    return shared >= NEAR * (len(a) + len(b) - shared)


# --- contrast pairs -------------------------------------------------------------------------------


def _contrasts(items: Sequence[Item]) -> Iterable[tuple[int, int]]:
    """Pairs of a harmful request and the harmless one made to look like it."""
    for unsafe, safe in TWINS.items():
        partners: dict[tuple[str, int], list[int]] = {}
        for i, key in _places(items, safe):
            partners.setdefault(key, []).append(i)
        for i, (category, number) in _places(items, unsafe):
            for (name, other), found in partners.items():
                if other == number and category in name:
                    yield from ((i, j) for j in found)


def _places(items: Sequence[Item], task: str) -> Iterable[tuple[int, tuple[str, int]]]:
    """(position, (category without `contrast_`, number in it)) of a task's items."""
    counted: Counter[str] = Counter()
    for i, item in enumerate(items):
        if item.task != task:
            continue
        category = item.category.removeprefix("contrast_")
        digits = re.search(r"\d+$", item.id)
        if task.startswith("xstest") and digits:
            number = (int(digits.group()) - 1) % _BLOCK
        elif digits:
            number = int(digits.group())
        else:  # pairs by kind alone: the n-th of each
            number = counted[item.category]
            counted[item.category] += 1
        yield i, (category, number)
