"""The template grid: every train prompting × every serve prompting × seeds (P2, table 2's form).

A model is trained once per train prompting and seed, and asked under all serve promptings. The
first row is the model that was not tuned; the diagonal is what most people do: serve as trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from holdfast import __version__
from holdfast.errors import RecipeError
from holdfast.job.mixture import MAIN
from holdfast.job.mixture import Arm as Trained
from holdfast.job.pipeline import Job
from holdfast.job.rundir import RunFolder, StageStore
from holdfast.job.setup import Setup, set_up
from holdfast.measuring.evaluation import Evaluation
from holdfast.models import resolve_model
from holdfast.recipe import Recipe
from holdfast.rendering.prompting import Prompting
from holdfast.stages.planning import Served
from holdfast.sweep import summary
from holdfast.sweep.arms import Arm, failures, run_arms
from holdfast.sweep.measures import Share, harm_is_seen, measure
from holdfast.sweep.store import SharedStages
from holdfast.sweep.values import WHOLE
from holdfast.templates import template_names

UNTUNED = "not tuned"
SHOWN = ("harm", "over_refusal", "capability")
PLAIN = "none"

Cells = dict[tuple[str, str], dict[int, dict[str, Share]]]
"""(train, serve) → seed → measure → share."""


@dataclass(frozen=True, slots=True)
class Named:
    """A prompting on an axis: a template, a system prompt, both (`chatml+holdfast-default`)."""

    name: str
    template: str | None
    system: str | None

    def overrides(self, side: str) -> list[str]:
        """As settings of `prompting.train` or `prompting.serve`."""
        return [
            f"prompting.{side}.template={self.template or 'null'}",
            f"prompting.{side}.system={self.system or 'null'}",
        ]


def read_promptings(text: str) -> list[Named]:
    """`none,holdfast-default,chatml+holdfast-default` as promptings.

    `none` is the model's own template without a system prompt. A part that is a template on the
    shelf (or a `.jinja` file) is the template; any other is a system prompt, by name or as a file.

    Raises:
        RecipeError: nothing named, one named twice, or two templates in one prompting.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or len(set(names)) < len(names):
        raise RecipeError(
            f"Cannot read the promptings {text!r}: name each once, such as "
            "none,holdfast-default,chatml+holdfast-default."
        )
    return [_read_prompting(name) for name in names]


def _read_prompting(name: str) -> Named:
    parts = [part for part in name.split("+") if part != PLAIN]
    templates = [p for p in parts if p in template_names() or p.endswith(".jinja")]
    systems = [p for p in parts if p not in templates]
    if len(templates) > 1 or len(systems) > 1:
        raise RecipeError(
            f"The prompting {name!r} names {len(templates)} templates and {len(systems)} system "
            f"prompts; give at most one of each. Templates: {', '.join(template_names())}."
        )
    return Named(name, next(iter(templates), None), next(iter(systems), None))


# --- run ------------------------------------------------------------------------------------------


class GridJob(Job):
    """The main job, its model asked under every serve prompting of the grid."""

    def __init__(self, setup: Setup, folder: RunFolder, served: Mapping[str, Prompting]) -> None:
        super().__init__(setup, folder)
        self._served = {name: Served(prompting) for name, prompting in served.items()}

    def promptings(self, arm: Trained) -> dict[str, Served]:
        """Those of the grid, by surface name."""
        return self._served

    def before(self) -> dict[str, Any]:
        """The untouched model. A grid makes no verdict, so no budget has to be in reach."""
        return self._evaluate(self.setup.model, "4-before", self.setup.fingerprint, MAIN)

    def after(self) -> dict[str, Any]:
        """The tuned model under all serve promptings."""
        tuned = resolve_model(self.folder / "5-model")
        return self._evaluate(tuned, "6-after", self.train_key(MAIN), MAIN)


def sweep_grid(
    read: Callable[[Sequence[str]], Recipe],
    train: Sequence[Named],
    serve: Sequence[Named],
    seeds: Sequence[int],
    output: Path,
) -> dict[str, Any]:
    """Train under every train prompting, ask under every serve prompting, and tell.

    Args:
        read: gives the recipe with further overrides; its mitigations that add rows stay, `ptst`
            does not: it is one of the cells.
        train: the rows of the grid.
        serve: its columns.
        seeds: of choice, order and training, the same for every cell.
        output: the folder; the same command again goes on in it.

    Returns:
        What `grid.json` holds.

    Raises:
        HoldfastError: a prompting that cannot be found, or no arm that can run.
    """
    common = _common(read([]))
    surfaces = {f"serve-{i}": named for i, named in enumerate(serve)}
    promptings = {
        surface: set_up(read([*common, *named.overrides("serve")])).serve
        for surface, named in surfaces.items()
    }
    _check_distinct(surfaces, promptings)
    with RunFolder(output).opened():
        store = SharedStages(output / "store")
        arms = [
            Arm(f"train {named.name}", seed, folder, partial(read, settings))
            for seed in seeds
            for i, named in enumerate(train)
            for folder in [output / "arms" / f"train-{i}-seed-{seed}"]
            for settings in [[*common, *named.overrides("train"), f"seed={seed}", f"run={folder}"]]
        ]
        planned = run_arms(arms, lambda arm: _work(arm, promptings, store, "render"), "plan")
        possible = [done.arm for done in planned if done.error is None]
        ran = run_arms(possible, lambda arm: _work(arm, promptings, store, "after"), "arm")
    failed = [*failures(planned), *failures(ran)]
    finished = [done.arm for done in ran if done.error is None]
    if not finished:
        raise RecipeError(f"No arm of the grid could run: {failed[0]['message']}")
    names = {f"train {named.name}": named.name for named in train}
    cells, seen = _read_cells(finished, names, {s: n.name for s, n in surfaces.items()})
    found = tell(cells, [n.name for n in train], [n.name for n in serve], read([]))
    return {**found, "seeds": list(seeds), "harm_is_seen": seen, "failed": failed}


def _common(recipe: Recipe) -> list[str]:
    """Settings of every arm: no `ptst`, no control."""
    kept = [name for name in recipe.mitigations if name != "ptst"]
    return [f"mitigations=[{', '.join(kept)}]", "control=null", *WHOLE]


def _check_distinct(surfaces: Mapping[str, Named], promptings: Mapping[str, Prompting]) -> None:
    seen: dict[str, str] = {}
    for surface, prompting in promptings.items():
        name = surfaces[surface].name
        if prompting.fingerprint in seen:
            raise RecipeError(
                f"The promptings {seen[prompting.fingerprint]!r} and {name!r} are the same. Name "
                "each once."
            )
        seen[prompting.fingerprint] = name


def _work(
    arm: Arm, promptings: Mapping[str, Prompting], store: StageStore, until: str
) -> dict[str, Any]:
    setup = set_up(arm.recipe())
    with RunFolder(arm.folder, store).opened() as folder:
        return GridJob(setup, folder, promptings).go(until)


def _read_cells(
    arms: Sequence[Arm], train: Mapping[str, str], serve: Mapping[str, str]
) -> tuple[Cells, bool]:
    cells: Cells = {}
    seen = True
    for arm in arms:
        gate = arm.recipe().gate
        for row, folder in ((UNTUNED, "4-before"), (train[arm.point], "6-after")):
            evaluation = Evaluation.read(arm.folder / folder)
            seen = seen and harm_is_seen(evaluation)
            for surface, name in serve.items():
                by_seed = cells.setdefault((row, name), {})
                if arm.seed not in by_seed:
                    by_seed[arm.seed] = measure(evaluation, gate, surface)
    return cells, seen


# --- tell -----------------------------------------------------------------------------------------


def tell(
    cells: Cells, train: Sequence[str], serve: Sequence[str], recipe: Recipe
) -> dict[str, Any]:
    """The grid as stored: cells, the recommended pair, and how it compares with its diagonals."""
    found = {place: summary.levels(by_seed) for place, by_seed in cells.items()}
    budget = recipe.gate.capability.max_change / 100
    tuned = {p: {n: one.mean for n, one in f.items()} for p, f in found.items() if p[0] != UNTUNED}
    pair = recommend(tuned, budget)
    steps = _against_diagonals(cells, pair)
    return {
        "version": __version__,
        "kind": "grid",
        "train": list(train),
        "serve": list(serve),
        "budget": budget,
        "cells": [
            {"train": row, "serve": column, "measures": summary.level_json(found[row, column])}
            for row, column in found
        ],
        "recommended": None if pair is None else {"train": pair[0], "serve": pair[1]},
        "differences": summary.step_json(steps),
        "doubts": summary.doubts(steps),
    }


def recommend(
    means: Mapping[tuple[str, str], Mapping[str, float]], budget: float
) -> tuple[str, str] | None:
    """The pair with the lowest harm among those that learnt the task.

    A pair learnt the task if its accuracy is within `budget` of the best pair's. Ties are broken
    by lower over-refusal, then higher accuracy, then the order of the axes. None where harm or
    accuracy was not measured.
    """
    able = {p: m for p, m in means.items() if "harm" in m and "capability" in m}
    if not able:
        return None
    best = max(m["capability"] for m in able.values())
    kept = [p for p, m in able.items() if m["capability"] >= best - budget - 1e-9]
    return min(
        kept,
        key=lambda p: (able[p]["harm"], able[p].get("over_refusal", 0.0), -able[p]["capability"]),
    )


def _against_diagonals(cells: Cells, pair: tuple[str, str] | None) -> list[summary.Step]:
    """Every pair against training as it is served; the recommended one also as it was trained."""
    tuned = [place for place in cells if place[0] != UNTUNED]
    compared = [((serve, serve), (train, serve)) for train, serve in tuned]
    if pair is not None:
        compared.append(((pair[0], pair[0]), pair))
    return [
        found
        for first, second in compared
        if first in tuned and first != second
        for name in SHOWN
        if (found := _step(cells, name, first, second))
    ]


def _step(
    cells: Cells, name: str, first: tuple[str, str], second: tuple[str, str]
) -> summary.Step | None:
    start, end = (summary.one(cells[place], name) for place in (first, second))
    return summary.step(name, (pair_label(*first), start), (pair_label(*second), end))


def pair_label(train: str, serve: str) -> str:
    """A cell in words."""
    return f"train {train}, serve {serve}"
