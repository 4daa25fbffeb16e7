"""Attack `autodan`: readable prompts bred by a hierarchical genetic search (white box).

AutoDAN-HGA (Liu et al., arXiv 2310.04451). An individual is a text around the request, its fitness
the mean log-probability of an affirmative opening of the reply. Each generation

    scores what is new, and asks the fittest for a full answer
    → keeps the elite; draws parents with softmax weights on fitness
    → crosses them sentence by sentence, now and then puts in a sentence of the seeds
    → exchanges words for others that stood in fitter individuals (a running mean over generations)

The paper takes synonyms from a thesaurus and rewrites sentences with a language model. Here a word
gives way only to one that follows the same word somewhere in the population, and a sentence only to
one of the seeds: no further model is needed, and the search stays inside the seeds' words.
"""

from __future__ import annotations

import math
import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated

from pydantic import Field

from holdfast.attacks import ATTACKS
from holdfast.attacks._lab_mutator import LAB, templates
from holdfast.attacks._texts import read_rows
from holdfast.errors import DataError
from holdfast.files import digest
from holdfast.measuring.searching import FromTheRequest, Target
from holdfast.types import Item

SLOT = "{request}"
OPENING = "Sure, here is how."
"""The reply's opening whose log-probability is fitness."""
_SENTENCE = re.compile(r"[^.!?:\n]*[.!?:\n]+\s*|[^.!?:\n]+$")

Genome = tuple[str, ...]
"""Sentences; their join holds the slot once."""
Fitness = Mapping[Genome, float]


@ATTACKS.register("autodan")
class AutoDAN(FromTheRequest):
    """Texts around the request, bred for the likelihood of an affirmative opening (AutoDAN-HGA)."""

    needs = frozenset({"logprobs"})

    def __init__(
        self,
        seeds: str | None = None,
        column: str | None = None,
        split: str = "train",
        queries: Annotated[int, Field(ge=2)] = 1000,
        seconds: Annotated[float, Field(gt=0)] | None = None,
        population: Annotated[int, Field(ge=2)] = 64,
        elite: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        crossover: Annotated[float, Field(ge=0, le=1)] = 0.5,
        mutation: Annotated[float, Field(ge=0, le=1)] = 0.05,
        opening: Annotated[str, Field(min_length=1)] = OPENING,
        data_dir: Path | None = None,
    ) -> None:
        """Read the seeds and set the budget.

        Args:
            seeds: a file or Hub dataset of texts with `{request}` in them; `lab`: the scale
                model's personas (the default there).
            column: that holds the texts; None: the first in which `{request}` occurs.
            split: of a Hub dataset.
            queries: of the target per item, likelihoods and answers together.
            seconds: most time per item; None: no limit.
            population: individuals of a generation.
            elite: share of them that goes on unchanged.
            crossover: chance that a sentence comes from the other parent.
            mutation: chance that a sentence gives way to one of the seeds; also a word's.
            opening: of the reply, whose likelihood is fitness.
            data_dir: folder with benchmark files.

        Raises:
            MaterialError: no such file or dataset.
            DataError: no text has the slot.
        """
        self._seeds = _seeds(seeds, column, split, data_dir)
        self.seeds = digest(self._seeds)
        """Hash of the seeds."""
        self.queries, self.seconds = queries, seconds
        self.population, self.elite = population, elite
        self.crossover, self.mutation, self.opening = crossover, mutation, opening

    def missing(self) -> str | None:
        """Without seeds there is nothing to breed."""
        if self._seeds:
            return None
        return (
            f"it has no texts to start from. Give a file or a Hub dataset of texts with {SLOT} in "
            "them: `evaluate.attack.autodan.seeds`"
        )

    def search(self, item: Item, target: Target, rng: random.Random) -> None:
        """Generation after generation, until the fittest succeeds or the budget is spent."""
        genomes = self._first(rng)
        fitness: dict[Genome, float] = {}
        words: dict[str, float] = {}
        asked: set[Genome] = set()
        while target.left > 0:
            new = [g for g in dict.fromkeys(genomes) if g not in fitness]
            texts = [_text(genome, item.request) for genome in new]
            fitness.update(zip(new, target.likelihood(texts, self.opening), strict=False))
            scored = sorted((g for g in fitness if g in set(genomes)), key=lambda g: -fitness[g])
            fittest = next((g for g in scored if g not in asked), None)
            if fittest is not None:
                asked.add(fittest)
                target.ask([_text(fittest, item.request)])
            elif not new:
                return  # the population has converged
            words = _word_scores(scored, fitness, words)
            genomes = self._next(scored, fitness, words, rng)

    def _first(self, rng: random.Random) -> list[Genome]:
        """The seeds, in random order, and crossings of them."""
        seeds = [sentences(text) for text in self._seeds]
        rng.shuffle(seeds)
        found = seeds[: self.population]
        while len(found) < self.population:
            found.append(_crossed(rng.choice(seeds), rng.choice(seeds), self.crossover, rng))
        return found

    def _next(
        self,
        scored: Sequence[Genome],
        fitness: Fitness,
        words: Mapping[str, float],
        rng: random.Random,
    ) -> list[Genome]:
        """The elite, and children of parents drawn by fitness; `scored` is best first."""
        kept = list(scored[: max(1, round(self.elite * self.population))])
        highest = fitness[scored[0]]
        weights = [math.exp(fitness[g] - highest) for g in scored]
        followers = _followers(scored)
        pool = [s for text in self._seeds for s in sentences(text) if SLOT not in s]
        while len(kept) < self.population:
            mother, father = rng.choices(scored, weights, k=2)
            child = _crossed(mother, father, self.crossover, rng)
            if pool:
                child = tuple(
                    rng.choice(pool) if SLOT not in s and rng.random() < self.mutation else s
                    for s in child
                )
            kept.append(_reworded(child, words, followers, self.mutation, rng))
        return kept


def sentences(text: str) -> Genome:
    """A text in sentences, each with the white space after it; the slot's piece stays whole."""
    return tuple(_SENTENCE.findall(text)) or (text,)


def _text(genome: Genome, request: str) -> str:
    return "".join(genome).replace(SLOT, request).strip()


def _crossed(mother: Genome, father: Genome, share: float, rng: random.Random) -> Genome:
    """The mother's sentences, some of them the father's in the same place; the slot is her own."""

    def inherited(own: str, theirs: str) -> str:
        free = bool(theirs) and SLOT not in own and SLOT not in theirs
        return theirs if free and rng.random() < share else own

    padded = (*father, *[""] * len(mother))
    return tuple(inherited(*pair) for pair in zip(mother, padded, strict=False))


def _word_scores(
    scored: Sequence[Genome], fitness: Fitness, before: Mapping[str, float]
) -> dict[str, float]:
    """Word → mean fitness of the individuals it stands in, averaged with its earlier score."""
    found: dict[str, list[float]] = defaultdict(list)
    for genome in scored:
        for word in dict.fromkeys("".join(genome).split()):
            found[word].append(fitness[genome])
    now = {word: sum(values) / len(values) for word, values in found.items()}
    return {**before, **{w: (v + before[w]) / 2 if w in before else v for w, v in now.items()}}


def _followers(genomes: Sequence[Genome]) -> dict[str, list[str]]:
    """Word → words that come after it somewhere in the population, in order of appearance."""
    after: dict[str, dict[str, None]] = defaultdict(dict)
    for genome in genomes:
        words = "".join(genome).split()
        for word, follower in pairwise(words):
            after[word][follower] = None
    return {word: list(found) for word, found in after.items()}


def _reworded(
    genome: Genome,
    words: Mapping[str, float],
    followers: Mapping[str, Sequence[str]],
    share: float,
    rng: random.Random,
) -> Genome:
    """Some words exchanged for better-scored ones that follow the same word elsewhere."""

    def sentence(text: str) -> str:
        if SLOT in text:
            return text
        pieces = re.split(r"(\s+)", text)
        for at in range(2, len(pieces), 2):
            word, previous = pieces[at], pieces[at - 2]
            better = [
                w for w in followers.get(previous, ())
                if w != SLOT and words.get(w, -math.inf) > words.get(word, math.inf)
            ]  # fmt: skip
            if word and better and rng.random() < share:
                pieces[at] = max(better, key=lambda w: words[w])
        return "".join(pieces)

    return tuple(sentence(text) for text in genome)


def _seeds(
    source: str | None, column: str | None, split: str, data_dir: Path | None
) -> tuple[str, ...]:
    """Texts that hold the slot exactly once."""
    if source is None:
        return ()
    if source == LAB:
        return templates()
    rows = read_rows(source, split=split, data_dir=data_dir)
    values = [[row.get(column)] if column else list(row.values()) for row in rows]
    texts = [v for row in values for v in row if isinstance(v, str) and v.count(SLOT) == 1]
    if not texts:
        raise DataError(
            f"No text of {source} has {SLOT} in it exactly once, where the request is to stand."
        )
    return tuple(dict.fromkeys(texts))
