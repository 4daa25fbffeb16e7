"""`dose: auto`: the smallest dose that passes the gate, confirmed on probes it was not chosen on.

    plan      every dose up to its rendered rows; grid, pre-flight of a half and cost are printed
    select    doses from the smallest, gated on the selection half, until one passes
    confirm   that model, gated once on the confirmation half

The confirmation half is spent by being looked at. Before the chosen model is asked it, a marker is
written that names model and gate; from then on this folder confirms nothing else, whatever came
out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from holdfast import __version__
from holdfast.errors import RecipeError
from holdfast.files import digest, plain, read_json, write_json
from holdfast.job.cost import estimate, matrix_rate
from holdfast.job.mixture import MAIN
from holdfast.job.pipeline import Job
from holdfast.job.rundir import RunFolder, StageStore
from holdfast.job.setup import Setup, set_up
from holdfast.measuring import preflight
from holdfast.progress import say, show
from holdfast.recipe import Recipe
from holdfast.sweep.arms import Arm, Done, failures, run_arms
from holdfast.sweep.document import Document, Table
from holdfast.sweep.halves import Halves, halves
from holdfast.sweep.store import SharedStages
from holdfast.types import Item

MARKER = "confirmation.json"
SELECTION, CONFIRMATION = "selection", "confirmation"
EXIT_OF = {"confirmed": 0, "no dose passes": 1, "not confirmed": 3}


class HalfJob(Job):
    """The main job with half of the probes; rows are kept apart from both halves alike."""

    def __init__(self, setup: Setup, folder: RunFolder, half: str) -> None:
        super().__init__(setup, folder)
        self.half = half

    @cached_property
    def halves(self) -> Halves:
        """All items, split."""
        return halves(self.all_items(), self.recipe.seed)

    @cached_property
    def items(self) -> list[Item]:
        """The items of this job's half."""
        return list(getattr(self.halves, self.half))

    def rendered_tokens(self) -> int:
        """Tokens of one pass over the rendered mixture."""
        return int(self._render(MAIN)["tokens"])


def find_dose(read: Callable[[Sequence[str]], Recipe], output: Path) -> dict[str, Any]:
    """Choose on one half, confirm on the other.

    Args:
        read: gives the recipe with further overrides.
        output: the folder of all of it; the same command again goes on in it.

    Returns:
        What `dose.json` holds; `outcome` is a key of `EXIT_OF`.

    Raises:
        RecipeError: halves too small for the gate; a confirmation half that is spent on another
            model or gate.
    """
    grid = sorted(set(read([]).safety.grid))
    with RunFolder(output).opened():
        store = SharedStages(output / "store")
        arms = [_arm(read, share, output) for share in grid]
        planned = run_arms(arms, lambda arm: _at_work(arm, SELECTION, store, _plan), "plan")
        possible = [done for done in planned if done.result is not None]
        if not possible:
            raise RecipeError(f"No dose of the grid can be mixed: {planned[0].error}")
        _announce(possible)
        tried = _select([done.arm for done in possible], store)
        chosen = next((d for d in tried if d.result and d.result["outcome"] == "PASS"), None)
        found = {
            "version": __version__,
            "kind": "dose",
            "grid": grid,
            "halves": next(d.result["halves"] for d in possible if d.result),
            "tried": [_tried(done) for done in tried],
            "failed": [*failures(planned), *failures(tried)],
            "chosen": None if chosen is None else chosen.arm.point,
            "confirmation": None,
        }
        if chosen is None:
            return {**found, "outcome": "no dose passes"}
        result = _confirm(read, chosen.arm, output, store)
    confirmed = result["outcome"] == "PASS"
    return {
        **found,
        "outcome": "confirmed" if confirmed else "not confirmed",
        "confirmation": {"outcome": result["outcome"], "reasons": result["reasons"]},
    }


def _arm(
    read: Callable[[Sequence[str]], Recipe], share: float, output: Path, half: str = SELECTION
) -> Arm:
    label = f"{100 * share:g}%"
    folder = output / half / f"share-{label}"
    more = ["safety.dose=null", f"safety.share={share}", f"run={folder}"]
    return Arm(label, read(more).seed, folder, lambda: read(more))


def _at_work(
    arm: Arm, half: str, store: StageStore, work: Callable[[HalfJob], dict[str, Any]]
) -> dict[str, Any]:
    setup = set_up(arm.recipe())
    with RunFolder(arm.folder, store).opened() as folder:
        return work(HalfJob(setup, folder, half))


# --- plan -----------------------------------------------------------------------------------------


def _plan(job: HalfJob) -> dict[str, Any]:
    job.go("render")
    plan = job.plan.to_json()
    return {
        "job": job,
        "added": {row["source"]: row["count"] for row in plan["rows"]},
        "tokens": job.rendered_tokens(),
        "halves": {
            half: _counts(getattr(job.halves, half)) for half in (SELECTION, CONFIRMATION)
        },
    }  # fmt: skip


def _counts(items: Sequence[Item]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for item in items:
        counts[item.task] = counts.get(item.task, 0) + 1
    return counts


def _announce(planned: Sequence[Done[dict[str, Any]]]) -> None:
    """Grid, halves, what a half can resolve and what it costs, before anything is trained."""
    facts = [done.result for done in planned if done.result is not None]
    job: HalfJob = facts[0]["job"]
    names = ", ".join(done.arm.point for done in planned)
    sizes = {half: sum(counts.values()) for half, counts in facts[0]["halves"].items()}
    say(f"Doses to try, the smallest first: {names}. The first that passes is confirmed.")
    say(f"Chosen on {sizes[SELECTION]:,} items, confirmed once on {sizes[CONFIRMATION]:,} others.")
    for half in (SELECTION, CONFIRMATION):
        _require_reachable(job, half)
    show(preflight.table(job.reach))
    recipe, asked = job.recipe, job.setup.asked
    surfaces = len(asked.attacks) * len(job.promptings(MAIN))
    cost = estimate(
        job.setup.model, recipe.tuning.method,
        train_tokens=round(recipe.tuning.epochs * sum(f["tokens"] for f in facts)),
        answers=surfaces * (sizes[SELECTION] * (1 + len(facts)) + 2 * sizes[CONFIRMATION]),
        max_new_tokens=asked.max_new_tokens,
        flops=matrix_rate(),
    )  # fmt: skip
    if cost is not None:
        say(f"If every dose is tried: {cost.line}")


def _require_reachable(job: HalfJob, half: str) -> None:
    items = list(getattr(job.halves, half))
    found = preflight.reaches(items, bool(job.formats), job.recipe.gate)
    try:
        preflight.require_reachable(found)
    except RecipeError as error:
        raise RecipeError(f"On one half of the probes ({half}): {error}") from None


# --- select and confirm ---------------------------------------------------------------------------


def _select(arms: Sequence[Arm], store: StageStore) -> list[Done[dict[str, Any]]]:
    """Doses from the smallest until one passes; each is one run on the selection half."""

    def gated(arm: Arm) -> dict[str, Any]:
        result = _at_work(arm, SELECTION, store, _whole)
        say(f"  {arm.point}: {result['outcome']} on the selection half")
        return result

    return run_arms(arms, gated, "dose", enough=lambda result: result["outcome"] == "PASS")


def _whole(job: HalfJob) -> dict[str, Any]:
    return job.go("report")


def _confirm(
    read: Callable[[Sequence[str]], Recipe], chosen: Arm, output: Path, store: StageStore
) -> dict[str, Any]:
    """The chosen dose's model on the other half, once."""
    share = float(chosen.point.rstrip("%")) / 100
    arm = _arm(read, share, output, CONFIRMATION)
    say(f"── confirm: {arm.point} on the other half of the probes")

    def work(job: HalfJob) -> dict[str, Any]:
        job.go("train")  # the same keys as in selection: taken over, not trained again
        _spend(output / MARKER, job)
        return job.go("report")

    return _at_work(arm, CONFIRMATION, store, work)


def _spend(marker: Path, job: HalfJob) -> None:
    """Bind the confirmation half to this model and gate for good.

    Raises:
        RecipeError: it is bound to another.
    """
    share = job.recipe.safety.share or 0.0
    mine = {
        "dose": f"{100 * share:g}%",
        "model": job.train_key(MAIN),
        "gate": digest(job.recipe.gate),
        "items": digest(sorted(f"{i.task}/{i.id}" for i in job.items)),
    }
    if not marker.exists():
        write_json(marker, mine)
        return
    spent = read_json(marker)
    other = [name for name in ("dose", "model", "gate", "items") if spent.get(name) != mine[name]]
    if other:
        raise RecipeError(
            f"The confirmation half was already asked for the dose {spent['dose']} "
            f"({marker}), and another {' and '.join(other)} cannot be confirmed on it: probes that "
            "were looked at confirm nothing. Start anew in another folder with probes that were "
            "not asked yet."
        )


def _tried(done: Done[dict[str, Any]]) -> dict[str, Any]:
    result = done.result or {"outcome": "did not run", "reasons": [done.error], "cells": []}
    gating = [cell for cell in result["cells"] if cell["gates"]]
    return {
        "dose": done.arm.point,
        "outcome": result["outcome"],
        "reasons": list(result["reasons"]),
        "cells": plain(gating),
    }


# --- tell -----------------------------------------------------------------------------------------


def dose_document(found: Mapping[str, Any]) -> Document:
    """What the search for a dose says."""
    tones = {"confirmed": "pass", "no dose passes": "fail", "not confirmed": "inconclusive"}
    rows = [
        [t["dose"], "selection", t["outcome"], t["reasons"][0] if t["reasons"] else ""]
        for t in found["tried"]
    ]
    if found["confirmation"]:
        told = found["confirmation"]
        rows.append([found["chosen"], "confirmation", told["outcome"], told["reasons"][0]])
    return Document(
        title="the smallest dose that passes",
        lead=_sentence(found),
        tables=[Table("Doses", ["share of safety rows", "half", "verdict", "why"], rows)],
        notes=[f"{f['value']} did not run: {f['message']}" for f in found["failed"]],
        tone=tones[found["outcome"]],
        details=[_halves_table(found["halves"])],
    )


def _sentence(found: Mapping[str, Any]) -> str:
    if found["outcome"] == "confirmed":
        return (
            f"{found['chosen']} safety rows is the smallest dose that passes the gate, confirmed "
            "on probes it was not chosen on."
        )
    if found["outcome"] == "not confirmed":
        return (
            f"Not confirmed: {found['chosen']} passed the gate on the half it was chosen on and "
            f"was {found['confirmation']['outcome']} on the other. That half is spent; no second "
            "dose is tried on it."
        )
    open_doses = [t["dose"] for t in found["tried"] if t["outcome"] == "INCONCLUSIVE"]
    more = f" Undecided: {', '.join(open_doses)}; more items could decide." if open_doses else ""
    return f"No dose of the grid passes the gate.{more}"


def _halves_table(counts: Mapping[str, Mapping[str, int]]) -> Table:
    tasks = sorted({task for half in counts.values() for task in half})
    rows = [[t, *(f"{counts[h].get(t, 0):,}" for h in (SELECTION, CONFIRMATION))] for t in tasks]
    return Table("Items in the halves", ["task", SELECTION, CONFIRMATION], rows)
