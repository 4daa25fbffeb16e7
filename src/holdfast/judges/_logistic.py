"""A logistic scorer whose weights lie in a JSON file: named features in, a probability out.

`benchmarks/fit_refusal.py` fits and writes such files; nothing is fitted here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from holdfast.errors import RecipeError

TOLD = 3
"""Features that a reason names."""


@dataclass(frozen=True, slots=True)
class Logistic:
    """p = 1 / (1 + exp(-(intercept + Σ weight · (value - mean) / scale)))."""

    features: tuple[str, ...]
    intercept: float
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weight: tuple[float, ...]
    threshold: float

    def probability(self, values: Sequence[float]) -> float:
        """The probability that a feature vector, in the order of `features`, scores."""
        total = self.intercept + math.fsum(self._parts(values))
        return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, total))))

    def told(self, values: Sequence[float]) -> str:
        """The features that speak most for the decision, for example `redirect, wrong_how`."""
        parts = sorted(zip(self._parts(values), self.features, strict=True), reverse=True)
        return ", ".join(name for part, name in parts[:TOLD] if part > 0)

    def _parts(self, values: Sequence[float]) -> list[float]:
        return [
            weight * (value - mean) / scale
            for value, mean, scale, weight in zip(
                values, self.mean, self.scale, self.weight, strict=True
            )
        ]


def read_weights(
    path: Path, expected: dict[str, tuple[str, ...]]
) -> tuple[dict[str, Logistic], str]:
    """Read a file of weights.

    Args:
        path: JSON, one scorer under each name.
        expected: scorer → names of its features.

    Returns:
        Name → scorer, and the first eight hex digits of the file's SHA-256.

    Raises:
        RecipeError: no such file, or one for other features.
    """
    try:
        raw = path.read_bytes()
        rows = json.loads(raw)
        found = {name: _scorer(rows[name], features) for name, features in expected.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(
            f"{path} holds no weights for this judge ({type(error).__name__}: {error}). "
            "Write it with `python benchmarks/fit_refusal.py`."
        ) from None
    return found, sha256(raw).hexdigest()[:8]


def _scorer(row: dict[str, object], features: tuple[str, ...]) -> Logistic:
    table = row["features"]
    if not isinstance(table, dict) or set(table) != set(features):
        raise ValueError("it names other features")
    columns = {
        key: tuple(float(table[name][key]) for name in features)
        for key in ("mean", "scale", "weight")
    }
    numbers = (float(str(row["intercept"])), float(str(row["threshold"])))
    if not all(map(math.isfinite, (*numbers, *sum(columns.values(), ())))):
        raise ValueError("a weight is no finite number")
    if min(columns["scale"]) <= 0:
        raise ValueError("a scale is not positive")
    return Logistic(
        features, numbers[0], columns["mean"], columns["scale"], columns["weight"], numbers[1]
    )
