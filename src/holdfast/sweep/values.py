"""Values: a recipe's settings over values and seeds, each arm by the ordinary pipeline.

plan   every arm up to its rendered rows: impossible doses show before anything is trained
run    every arm to its report
tell   dose-response, differences paired by seed, Pareto front
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast import __version__
from holdfast.errors import RecipeError
from holdfast.files import read_json
from holdfast.job.pipeline import run
from holdfast.job.rundir import RunFolder
from holdfast.measuring.evaluation import Evaluation
from holdfast.recipe import Recipe
from holdfast.sweep import summary
from holdfast.sweep.arms import Arm, Done, failures, run_arms
from holdfast.sweep.axes import Axis, Point, points
from holdfast.sweep.measures import harm_is_seen, measure
from holdfast.sweep.store import SharedStages

Reader = Callable[[Sequence[str]], Recipe]
"""The recipe with further overrides on top of the command line's."""

WHOLE = ("evaluate.sequential=false",)
"""Levels are compared, so everything is asked: stopping early would bend them."""
_DOSES = ("count", "share", "ratio")


def sweep_values(
    read: Reader, axes: Sequence[Axis], seeds: Sequence[int], output: Path
) -> dict[str, Any]:
    """Train and evaluate every value with every seed, and tell what they say.

    Args:
        read: gives the recipe with overrides.
        axes: settings and values.
        seeds: of choice, order and training; the same for every value.
        output: the sweep's folder; the same command again goes on in it.

    Returns:
        What `sweep.json` holds.

    Raises:
        HoldfastError: a recipe or folder that stops every arm.
    """
    wanted = points(axes)
    read([])
    with RunFolder(output).opened():
        store = SharedStages(output / "store")
        arms = [
            Arm(point.label, seed, folder, _reader(read, point, seed, folder))
            for seed in seeds
            for point in wanted
            for folder in [output / "arms" / f"{point.slug}-seed-{seed}"]
        ]
        planned = run_arms(arms, lambda arm: run(arm.recipe(), until="render", store=store), "plan")
        possible = [done.arm for done in planned if done.error is None]
        ran = run_arms(possible, lambda arm: run(arm.recipe(), store=store), "arm")
    finished = [done for done in ran if done.error is None]
    failed = [*failures(planned), *failures(ran)]
    if not finished:
        raise RecipeError(_all_failed(failed))
    return tell(axes, wanted, seeds, finished, failed)


def _reader(read: Reader, point: Point, seed: int, folder: Path) -> Callable[[], Recipe]:
    own = [f"seed={seed}", f"run={folder}", *WHOLE]
    return lambda: read([*_cleared(point), *point.overrides, *own])


def _cleared(point: Point) -> list[str]:
    """A dose is said in one way: what the recipe says in another is taken back."""
    cleared = []
    for setting, _ in point.settings:
        block, _, way = setting.rpartition(".")
        if block in ("safety", "borderline", "triples") and way in _DOSES:
            cleared += [f"{block}.{other}=null" for other in _DOSES if other != way]
    return cleared


def _all_failed(failed: Sequence[Mapping[str, Any]]) -> str:
    told = "\n  ".join(f"{f['value']}, seed {f['seed']}: {f['message']}" for f in failed)
    return f"No arm of the sweep could run:\n  {told}"


# --- tell -----------------------------------------------------------------------------------------


def tell(
    axes: Sequence[Axis],
    wanted: Sequence[Point],
    seeds: Sequence[int],
    finished: Sequence[Done[dict[str, Any]]],
    failed: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The sweep as stored: levels, differences, front, doubts, every arm."""
    after: dict[str, dict[int, Any]] = {point.label: {} for point in wanted}
    untuned: dict[int, Any] = {}
    rows = []
    seen = True
    for done in finished:
        arm, gate = done.arm, done.arm.recipe().gate
        evaluation = Evaluation.read(arm.folder / "6-after")
        seen = seen and harm_is_seen(evaluation)
        after[arm.point][arm.seed] = measure(evaluation, gate)
        if arm.seed not in untuned:
            untuned[arm.seed] = measure(Evaluation.read(arm.folder / "4-before"), gate)
        rows.append(_arm(done))
    values = {label: by_seed for label, by_seed in after.items() if by_seed}
    found = {label: summary.levels(by_seed) for label, by_seed in values.items()}
    changes = summary.steps(values)
    means = {label: {name: one.mean for name, one in f.items()} for label, f in found.items()}
    numbers = {point.label: point.number for point in wanted}
    return {
        "version": __version__,
        "kind": "values",
        "axes": [{"setting": a.setting, "values": list(a.values)} for a in axes],
        "seeds": list(seeds),
        "harm_is_seen": seen,
        "untuned": summary.level_json(summary.levels(untuned)),
        "values": [
            {
                "label": label,
                "number": numbers[label],
                "rows": _mixed(rows, label),
                "outcomes": {str(r["seed"]): r["outcome"] for r in rows if r["value"] == label},
                "measures": summary.level_json(found[label]),
            }
            for label in values
        ],
        "differences": summary.step_json(changes),
        "pareto": summary.pareto(means),
        "doubts": summary.doubts(changes),
        "arms": rows,
        "failed": list(failed),
    }


def _arm(done: Done[dict[str, Any]]) -> dict[str, Any]:
    assert done.result is not None
    mixture = read_json(done.arm.folder / "manifest.json")["mixture"]
    return {
        "value": done.arm.point,
        "seed": done.arm.seed,
        "folder": f"arms/{done.arm.folder.name}",
        "outcome": done.result["outcome"],
        "rows": mixture["by_source"],
    }


def _mixed(rows: Sequence[Mapping[str, Any]], label: str) -> dict[str, list[int]]:
    """Source → rows in each seed's mixture, the user's own included."""
    mine = [r["rows"] for r in rows if r["value"] == label]
    sources = sorted({source for by_source in mine for source in by_source})
    return {source: [by_source.get(source, 0) for by_source in mine] for source in sources}
