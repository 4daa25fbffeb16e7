"""Mimicry: whether rows that mimic the user's format can be told from the user's own.

A model that can tell safety rows from task rows keeps both lessons apart (P4, papers §5b). So a
simple classifier tries to: logistic regression on what the eye catches first (lengths, lines,
punctuation, words that at least a fifth of the user's rows have), scored by cross-validation. It
knows nothing of how the formats were induced. 0.5 means that it can't tell; 1 that it always can.

Answers are looked at twice. Their words and lengths tell a refusal from a task's answer whatever is
done: a refusal that they could not tell would be no refusal. Their *layout* need not: on how many
lines a reply stands, how a line begins, its first letter, its closing mark.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import re
import string
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.text import words
from holdfast.types import Conversation

ROWS = 1500
"""Rows of either kind that are looked at, at most; those with the smallest hashes."""
FEW = 20
"""Below this many rows of a kind the check is not run: its area would say nothing."""
COMMON = 0.2
"""Share of the user's rows that must have a word for it to be a feature."""
MOST_WORDS = 200
FOLDS = 5
PENALTY = 1.0
STEPS = 12
TOLD_APART = 0.75
"""An area from which on a person is told that the rows can be told apart."""

_ITEM = re.compile(r"\s*(?:[-*•]|\d+[.)])\s")

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Likeness:
    """How well mimicking rows can be told from the user's, prompts and answers apart."""

    prompts: float
    """Area under the ROC curve, cross-validated."""
    answers: float
    """The same of the replies, words and lengths included."""
    layout: float
    """The same of the replies' layout alone."""
    user_rows: int
    mimic_rows: int

    @property
    def line(self) -> str:
        """For a person."""
        told = (
            "above 0.75 the wrapper, or what stands in it, gives them away: see docs/mimicry.md"
            if self.prompts >= TOLD_APART
            else "0.5 is no better than guessing"
        )
        return (
            f"mimicry: a simple classifier tells mimicking prompts from the user's with AUC "
            f"{self.prompts:.2f}, answers with {self.layout:.2f} by their layout and "
            f"{self.answers:.2f} by their words as well ({told})"
        )

    def to_json(self) -> dict[str, Any]:
        """As stored with the mixture."""
        return {
            "prompts_auc": round(self.prompts, 4),
            "answers_auc": round(self.answers, 4),
            "answers_layout_auc": round(self.layout, 4),
            "user_rows": self.user_rows,
            "mimic_rows": self.mimic_rows,
        }


@dataclass(frozen=True, slots=True)
class NotChecked:
    """That there are too few rows of a kind to tell them apart."""

    user_rows: int
    mimic_rows: int

    @property
    def line(self) -> str:
        """For a person."""
        return f"mimicry: self-check not run: {self.why}"

    @property
    def why(self) -> str:
        """What is missing."""
        return (
            f"it takes {FEW} rows of the user's and {FEW} mimicking ones, and there are "
            f"{self.user_rows:,} and {self.mimic_rows:,}"
        )

    def to_json(self) -> dict[str, Any]:
        """As stored with the mixture."""
        rows = {"user_rows": self.user_rows, "mimic_rows": self.mimic_rows}
        return {"not_run": self.why, **rows}


class LikenessCheck:
    """Sees the rows of a mixture; holds a bounded, order-independent sample of each kind."""

    def __init__(self, source: str = "mimic", size: int = ROWS) -> None:
        self.source = source
        self.size = size
        self._samples: dict[str, list[tuple[int, str, str]]] = {"user": [], source: []}

    def see(self, row: Conversation) -> None:
        """Consider one row."""
        self.consider(row.source, sample_key(row), lambda: row)

    def consider(self, source: str, key: int, row: Callable[[], Conversation]) -> None:
        """Consider a row of this source and `sample_key`, which is made only if it may be kept."""
        sample = self._samples.get(source)
        if sample is None or (len(sample) >= self.size and key < sample[0][0]):
            return
        found = row()
        entry = (key, _prompt(found), found.reply)
        if len(sample) < self.size:
            heapq.heappush(sample, entry)
        elif entry > sample[0]:
            heapq.heapreplace(sample, entry)

    def result(self) -> Likeness | NotChecked:
        """What the classifier makes of the rows, if there are `FEW` of either kind."""
        user, mimic = (sorted(self._samples[kind]) for kind in ("user", self.source))
        if min(len(user), len(mimic)) < FEW:
            return NotChecked(len(user), len(mimic))
        prompts = [row[1] for row in user], [row[1] for row in mimic]
        answers = [row[2] for row in user], [row[2] for row in mimic]
        return Likeness(
            separability(*prompts), separability(*answers), separability(*answers, layout=True),
            len(user), len(mimic),
        )  # fmt: skip


def sample_key(row: Conversation) -> int:
    """A hash of what a row says; rows with the largest are kept."""
    text = f"{_prompt(row)}\0{row.reply}".encode("utf-8", "surrogatepass")
    return -int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())


def likeness(rows: Iterable[Conversation], source: str = "mimic") -> Likeness | NotChecked:
    """How well rows of one source can be told from the user's, where there are enough."""
    check = LikenessCheck(source)
    for row in rows:
        check.see(row)
    return check.result()


def separability(user: Sequence[str], mimic: Sequence[str], *, layout: bool = False) -> float:
    """Cross-validated area under the ROC curve of a logistic regression, in [0, 1].

    Args:
        user: texts of the user's rows; they alone decide which words are features.
        mimic: texts of the others.
        layout: whether layout is all that is looked at.
    """
    texts = [*user, *mimic]
    if layout:
        values = np.array([_layout(text) for text in texts])
    else:
        said = [frozenset(words(text)) for text in texts]
        common = _common(said[: len(user)])
        values = np.array([_features(*both, common) for both in zip(texts, said, strict=True)])
    labels = np.array([0.0] * len(user) + [1.0] * len(mimic))
    folds = np.array([i % FOLDS for i in range(len(user))] + [i % FOLDS for i in range(len(mimic))])
    scores = np.zeros(len(labels))
    for fold in range(FOLDS):
        held = folds == fold
        weights, mean, scale = _fit(values[~held], labels[~held])
        scores[held] = _with_one((values[held] - mean) / scale) @ weights
    areas = [area(scores[(folds == f) & (labels == 0)], scores[(folds == f) & (labels == 1)])
             for f in range(FOLDS)]  # fmt: skip
    return float(np.mean(areas))


def area(low: Array, high: Array) -> float:
    """Probability that a score of `high` exceeds one of `low`, ties counted half (Mann-Whitney)."""
    below = np.searchsorted(np.sort(low), high, "left")
    up_to = np.searchsorted(np.sort(low), high, "right")
    return float((below + up_to).sum() / (2 * len(low) * len(high)))


# --- features -------------------------------------------------------------------------------------


def _prompt(row: Conversation) -> str:
    return f"{row.system or ''}\n{row.request}"


def _common(said: Sequence[Collection[str]]) -> list[str]:
    """The words that enough texts have, each given by its distinct words."""
    counts = Counter(chain.from_iterable(said))
    least = COMMON * len(said)
    ranked = sorted((w for w, n in counts.items() if n >= least), key=lambda w: (-counts[w], w))
    return ranked[:MOST_WORDS]


def _layout(text: str) -> list[float]:
    """Lines, how they begin, the first letter and the closing mark: what any reply can share."""
    lines = text.strip().split("\n")
    filled = [line for line in lines if line.strip()]
    first = next((char for char in text if char.isalpha()), "")
    return [
        float(len(filled) > 1), float(len(lines) > len(filled)),
        float(any(line[:1].isspace() for line in filled)),
        float(any(_ITEM.match(line) for line in filled)),
        float(first.isupper()), float(text != text.lower()),
        *(float(text.rstrip()[-1:] == char) for char in ".?!:"),
    ]  # fmt: skip


def _features(text: str, said: Collection[str], common: Sequence[str]) -> list[float]:
    lines = text.split("\n")
    filled = [line for line in lines if line.strip()]
    counts = Counter(text)

    def number(kind: Callable[[str], bool]) -> int:
        return sum(times for char, times in counts.items() if kind(char))

    layout = [
        math.log1p(len(text)), math.log1p(len(text.split())), float(len(filled)),
        float(len(lines) - len(filled)), float(sum(line[:1].isspace() for line in filled)),
        number(str.isupper) / max(1, number(str.isalpha)), math.log1p(number(str.isdigit)),
        math.log1p(number(lambda char: not char.isascii())),
    ]  # fmt: skip
    punctuation = [math.log1p(counts[char]) for char in string.punctuation]
    ending = [float(text.rstrip()[-1:] == char) for char in ".?!:"]
    return [*layout, *punctuation, *ending, *(float(word in said) for word in common)]


# --- logistic regression --------------------------------------------------------------------------


def _fit(values: Array, labels: Array) -> tuple[Array, Array, Array]:
    """Weights (intercept first), mean and scale: ridge-penalised Newton steps, balanced classes."""
    mean, scale = values.mean(axis=0), values.std(axis=0)
    scale[scale < 1e-9] = 1.0
    x = _with_one((values - mean) / scale)
    share = labels.mean()
    balance = np.where(labels == 1, 0.5 / share, 0.5 / (1 - share))
    ridge = PENALTY * np.eye(x.shape[1])
    ridge[0, 0] = 1e-6
    weights = np.zeros(x.shape[1])
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        slope = x.T @ (balance * (p - labels)) + ridge @ weights
        curve = (x * (balance * p * (1 - p))[:, None]).T @ x + ridge
        step = np.linalg.solve(curve, slope)
        weights = weights - step
        if np.abs(step).max() < 1e-4:
            break
    return weights, mean, scale


def _with_one(values: Array) -> Array:
    return np.hstack([np.ones((len(values), 1)), values])
