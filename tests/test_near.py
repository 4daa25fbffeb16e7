"""Near duplicates: found exactly, in any order, without comparing everything with everything."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.rows.near import NearIndex
from holdfast.text import words

KNOWN = [
    ("q/1", "How do I reset the boiler in my kitchen?"),
    ("q/2", "Which trains go to the coast on Sundays?"),
    ("q/3", "How do I paint the fence behind my house?"),
    ("q/4", "How do I feed the neighbour's tortoise?"),
]


def likeness(index, one, other):
    """Weighted Jaccard by its definition."""
    a, b = set(words(one)), set(words(other))
    weight = sum(map(index._weight, a | b))
    return sum(map(index._weight, a & b)) / weight if weight else 0.0


def test_repetitions_are_found_by_kind():
    index = NearIndex(KNOWN)
    exact = index.find("how do i reset  the BOILER in my kitchen?")
    assert (exact.name, exact.kind) == ("q/1", "exact")
    inside = index.find("You are Vela. Which trains go to the coast on Sundays? Answer briefly.")
    assert (inside.name, inside.kind) == ("q/2", "contains")
    near = index.find("Tell me how to feed the neighbour's tortoise.")
    assert (near.name, near.kind) == ("q/4", "near")
    assert near.likeness == pytest.approx(
        likeness(index, "Tell me how to feed the neighbour's tortoise.", KNOWN[3][1])
    )


def test_a_shared_phrasing_is_no_likeness():
    index = NearIndex(KNOWN)
    assert index.find("How do I bake the bread in my oven?") is None
    assert index.find("") is None
    assert index.find("?!") is None
    assert NearIndex([]).find("anything") is None


def test_the_threshold_is_a_setting():
    text = "Which trains go to the mountains on Sundays?"
    assert NearIndex(KNOWN, 0.5).find(text).name == "q/2"
    assert NearIndex(KNOWN, 0.95).find(text) is None
    assert NearIndex(KNOWN, 1.0).find("the boiler in my kitchen how do I reset").kind == "near"
    with pytest.raises(ValueError, match="threshold is 0"):
        NearIndex(KNOWN, 0)


def test_the_order_of_the_known_texts_does_not_matter():
    texts = [*KNOWN, ("a/9", KNOWN[0][1])]
    for order in (texts, texts[::-1]):
        index = NearIndex(order)
        assert len(index) == 4
        assert index.find(KNOWN[0][1]).name == "a/9"  # of equals, the smaller name


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    threshold=st.sampled_from([0.3, 0.5, 0.8, 1.0]),
)
def test_the_prefix_filter_loses_nothing(seed, threshold):
    rng = random.Random(seed)
    vocabulary = [f"w{i}" for i in range(12)]

    def text():
        # Rare words at the end of the vocabulary, common ones at its beginning.
        size = rng.randint(1, 7)
        return " ".join(vocabulary[int(12 * rng.random() ** 2)] for _ in range(size))

    known = [(f"k/{i}", text()) for i in range(15)]
    index = NearIndex(known, threshold)
    for _ in range(15):
        asked = text()
        found = index.find(asked)
        best = max(likeness(index, asked, other) for _, other in known)
        if found is None:
            assert best < threshold or math.isclose(best, threshold)
        elif found.kind == "near":
            assert found.likeness == pytest.approx(best)


def test_time_does_not_grow_with_the_product():
    rng = random.Random(0)
    nouns = [f"thing{i}" for i in range(4000)]
    known = [
        (f"k/{i}", f"How do I put the {rng.choice(nouns)} on the {rng.choice(nouns)}?")
        for i in range(4000)
    ]
    index = NearIndex(known)
    # Words that all texts share are never looked up; only a rare one leads to candidates.
    looked_up = Counter(len(index._by_word[word]) for word in index._by_word)
    assert max(looked_up) < 40


def test_published_rows_near_published_probes(real_data):
    """The rows that repeat an evaluation item in other words; none by more than wording."""
    from holdfast.rows.load import open_rows
    from holdfast.tasks import TaskContext, task

    context = TaskContext(real_data, offline=True)
    names = ("advbench", "q-harm", "strongreject", "xstest-safe")
    items = [item for name in names for item in task(name).items(context)]
    index = NearIndex((f"{i.task}/{i.id}", i.request) for i in items)
    source = real_data / "safety_tuned_llamas" / "safety_only_data_Instructions.json"
    found = [match for row in open_rows(source) if (match := index.find(row.request))]
    assert {match.kind for match in found} == {"near"}
    assert len(found) == 6
