"""The noise floor: how much an evaluation moves when the model does not.

The untouched model is asked again: under sampled decoding with other seeds, in batches of another
size, and in another precision. What differs between those evaluations is no effect of tuning, and a
change of that size is not evidence of one. (Greedy repetition on one machine gives the same bytes,
and so shows nothing.) The floor of a cell is what its pairs can resolve at the discordance seen:
the two-sided 95 % bound of the difference of two evaluations of one model.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.table import Table

from holdfast.engines import Engine
from holdfast.errors import RecipeError
from holdfast.files import make_folder, read_json, write_json
from holdfast.measuring.asking import Asked
from holdfast.measuring.evaluation import CellKey, Evaluation
from holdfast.statistics import inference

TEMPERATURE = 0.7
FILE = "noise.json"
_APART = 1_000_003
"""Between the seeds of two repetitions, so that no batch of one has the seed of another's."""

Ask = Callable[[Engine, Asked, Path, int], Any]
"""Asks an engine into an evaluation folder, with a seed of sampled decoding."""
Pairs = list[tuple[float, float]]


def measure_noise(
    ask: Ask,
    engine: Engine,
    asked: Asked,
    output: Path,
    *,
    repeats: int,
    temperature: float = TEMPERATURE,
    plain: Path | None = None,
) -> Path:
    """Ask one model again and again, and write how far its cells move.

    Args:
        ask: asks an engine into a folder.
        engine: the model.
        asked: as it is asked otherwise, greedily.
        output: holds an evaluation folder for each repetition, and `noise.json`.
        repeats: evaluations under sampled decoding, at least two.
        temperature: of those.
        plain: the greedy evaluation, where there is one already.

    Returns:
        The path of `noise.json`.

    Raises:
        RecipeError: fewer than two repetitions, or no temperature.
    """
    if repeats < 2 or temperature <= 0:
        raise RecipeError(
            f"A noise floor from {repeats} repetitions at temperature {temperature:g} would show "
            "nothing: give at least 2 repetitions and a temperature above 0."
        )
    make_folder(output)
    if plain is None:
        plain = output / "greedy"
        ask(engine, asked, plain, 0)
    warm = replace(asked, temperature=temperature)
    sampled = [output / f"sampled-{k}" for k in range(1, repeats + 1)]
    for k, folder in enumerate(sampled, 1):
        ask(engine, warm, folder, k * _APART)
    kinds = {"sampled": sampled, "batch": [plain, output / "batch"]}
    ask(engine, replace(asked, batch=max(1, asked.batch // 4)), output / "batch", 0)
    other = in_other_precision(engine)
    if other is not None:
        ask(other, asked, output / "precision", 0)
        kinds["precision"] = [plain, output / "precision"]
    evaluations = {kind: [Evaluation.read(f) for f in found] for kind, found in kinds.items()}
    write_json(
        output / FILE,
        {"temperature": temperature, "repeats": repeats, "cells": cells_of(evaluations)},
    )
    return output / FILE


def in_other_precision(engine: Engine) -> Engine | None:
    """A copy of a local model with 16-bit weights if it has 32, else 32; None for other engines."""
    model = getattr(engine, "model", None)
    if model is None or getattr(model, "is_quantized", False):
        return None
    import torch

    other = copy.copy(engine)
    dtype = torch.bfloat16 if model.dtype == torch.float32 else torch.float32
    other.model = copy.deepcopy(model).to(dtype)  # type: ignore[attr-defined]
    return other


def cells_of(kinds: Mapping[str, Sequence[Evaluation]]) -> list[dict[str, Any]]:
    """Every cell's rates, differences and floor, from evaluations of one model.

    Args:
        kinds: evaluations that differ in nothing but what the kind names, at least two of each.
    """
    keys = sorted(set.intersection(*(set(e.cells) for found in kinds.values() for e in found)))
    cells = []
    for key in keys:
        by_kind = {kind: _kind(key, found) for kind, found in kinds.items()}
        loudest = max(by_kind, key=lambda kind: by_kind[kind]["floor"])
        task, attack, surface = key
        cells.append(
            {
                "task": task,
                "attack": attack,
                "surface": surface,
                "floor": by_kind[loudest]["floor"],
                "by": loudest,
                "kinds": by_kind,
            }
        )
    return cells


def floors(path: Path) -> dict[CellKey, float]:
    """Cell → noise floor, from a folder that `measure_noise` wrote, or its file."""
    file = path / FILE if path.is_dir() else path
    cells: Iterable[Mapping[str, Any]] = read_json(file)["cells"]
    return {(c["task"], c["attack"], c["surface"]): c["floor"] for c in cells}


def table(cells: Sequence[Mapping[str, Any]]) -> Table:
    """The floors for the terminal, in points."""
    shown = Table(title="What moves when nothing is tuned (points)", title_justify="left")
    for column in ("task", "attack", "surface"):
        shown.add_column(column)
    for column in ("pairs", "sampled rates", "sampled", "batch", "precision", "floor"):
        shown.add_column(column, justify="right")
    for cell in cells:
        kinds = cell["kinds"]
        rates = [100 * r for r in kinds["sampled"]["rates"] if r is not None]
        spread = f"{min(rates):.1f}–{max(rates):.1f}" if rates else "–"
        shown.add_row(
            cell["task"], cell["attack"], cell["surface"], f"{kinds['sampled']['n']:,}", spread,
            *(_largest(kinds.get(kind)) for kind in ("sampled", "batch", "precision")),
            f"±{100 * cell['floor']:.1f}",
        )  # fmt: skip
    return shown


def _largest(kind: Mapping[str, Any] | None) -> str:
    """The largest difference of two evaluations, with its sign away."""
    known = [abs(d) for d in (kind or {}).get("differences", ()) if d is not None]
    return f"{100 * max(known):.1f}" if known else "–"


def _kind(key: CellKey, evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Rates of each evaluation, the difference of every two, and what that amounts to."""
    outcomes = [dict(e.outcomes(key)) for e in evaluations]
    pairs = [_paired(a, b) for a, b in combinations(outcomes, 2)]
    differences = [_mean([b - a for a, b in p]) for p in pairs]
    n = min((len(p) for p in pairs), default=0)
    moved = _mean([_mean([(b - a) ** 2 for a, b in p]) or 0.0 for p in pairs]) or 0.0
    binary = all(x in (0.0, 1.0) for p in pairs for pair in p for x in pair)
    return {
        "rates": [_mean([x for x in o.values() if x is not None]) for o in outcomes],
        "differences": differences,
        "n": n,
        "discordance": moved,
        "floor": floor(n, moved) if binary else floor_of_means(n, moved),
    }


def floor(n: int, discordance: float, level: float = 0.95) -> float:
    """Two-sided bound of the difference of two evaluations of one model, as a share.

    Tango's bound at the expected discordant pairs, half each way: it knows n where nothing moved.
    """
    return inference.resolvable_change(n, discordance, 0.5 + level / 2)


def floor_of_means(n: int, square: float, level: float = 0.95) -> float:
    """The same for continuous outcomes, from the mean squared difference of pairs."""
    return inference.two_sided_z(level) * math.sqrt(square / n) if n else 1.0


def _paired(one: Mapping[str, float | None], other: Mapping[str, float | None]) -> Pairs:
    both = ((one[i], other[i]) for i in one if i in other)
    return [(a, b) for a, b in both if a is not None and b is not None]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return math.fsum(known) / len(known) if known else None
