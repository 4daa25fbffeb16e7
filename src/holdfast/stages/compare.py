"""Compare: two evaluation folders → paired differences and the gate's verdict.

Only like is compared with like: the same items, attacks, decoding, judges and judge versions, and
the same rendered text. A difference is an error that names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast import stats
from holdfast.errors import IncomparableError
from holdfast.evaluation import CellKey, Evaluation
from holdfast.files import plain
from holdfast.gate import Cell, Decision, decide
from holdfast.judges import judge
from holdfast.recipe import GateSettings
from holdfast.types import SIDE_OF, Surface

FIELDS = ("decoding", "judges", "date", "attacks")
"""Settings that must agree."""


def compare(
    before: Evaluation,
    after: Evaluation,
    gate: GateSettings,
    *,
    serving: str = "serve",
    cannot_hold: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Pair two evaluations, decide, and return the comparison as stored in `7-comparison.json`.

    Args:
        before: the untouched model.
        after: the tuned one.
        gate: budgets and levels.
        serving: the prompting that users meet; its surfaces gate.
        cannot_hold: tasks too small to hold even without any change (from the pre-flight), with
            the reason. They are reported, and still gate when they show that a budget is broken.

    Raises:
        IncomparableError: the two differ in more than the model.
    """
    check_comparable(before, after)
    cells = list(paired_cells(before, after, gate, serving))
    small = dict(cannot_hold or {})
    decision = decide(_able(cells, gate, small), gate)
    return {
        "outcome": decision.outcome,
        "reasons": [*decision.reasons, *(f"{t} does not gate: {why}" for t, why in small.items())],
        "refusal_before": decision.refusal_before,
        "serving": serving,
        "before": _identity(before),
        "after": _identity(after),
        "gate": gate.model_dump(),
        "cells": [plain(cell) for cell in decision.cells],
        "too_small": small,
        "not_run": after.settings.get("not_run", {}),
        "agreement": {"before": agreement(before), "after": agreement(after)},
    }


def check_comparable(before: Evaluation, after: Evaluation) -> None:
    """Check that two evaluations asked the same things in the same way.

    Raises:
        IncomparableError: they did not; names the first differences.
    """
    problems = [
        f"{name}: {before.settings.get(name)} before, {after.settings.get(name)} after"
        for name in FIELDS
        if before.settings.get(name) != after.settings.get(name)
    ]
    if before.versions() != after.versions():
        problems.append(f"judge versions: {before.versions()} before, {after.versions()} after")
    problems += _different_items(before, after)
    if problems:
        listed = "\n  ".join(problems[:5])
        raise IncomparableError(
            f"{before.folder} and {after.folder} cannot be compared:\n  {listed}\n"
            "Evaluate both models with the same settings."
        )


def _different_items(before: Evaluation, after: Evaluation) -> Iterator[str]:
    for key in sorted(set(before.cells) & set(after.cells)):
        earlier = {a.id: a for a in before.cells[key]}
        later = {a.id: a for a in after.cells[key]}
        name = " ".join(key)
        missing = sorted(set(earlier) ^ set(later))
        if missing:
            yield f"{name}: {len(missing)} attempts on one side only, such as {missing[0]}"
            continue
        changed = [i for i, a in earlier.items() if a.prompt != later[i].prompt]
        if changed:
            yield f"{name}: {len(changed)} prompts differ in their text, such as {changed[0]}"
    if not set(before.cells) & set(after.cells):
        yield "no task, attack and surface in common"


def paired_cells(
    before: Evaluation, after: Evaluation, gate: GateSettings, serving: str
) -> Iterator[Cell]:
    """Cells that both evaluations have, item by item."""
    for key in sorted(set(before.cells) & set(after.cells)):
        task, attack, surface = key
        first = before.cells[key][0]
        continuous = first.answer == "likelihood"
        yield Cell(
            side=SIDE_OF[first.expects],
            task=task,
            attack=attack,
            surface=surface,
            gates=gates(Surface.parse(surface), gate, serving),
            event=event_name(after, key),
            before=tuple(outcome for _, outcome in before.outcomes(key)),
            after=tuple(outcome for _, outcome in after.outcomes(key)),
            continuous=continuous,
        )


def gates(surface: Surface, gate: GateSettings, serving: str) -> bool:
    """Whether a surface is one that the serving contract exposes (or is listed in `gate.also`)."""
    if surface.name in gate.also:
        return True
    exposed = surface.prompting == serving and surface.form == "chat"
    return exposed and (surface.prefill == 0 or gate.prefill)


def event_name(evaluation: Evaluation, key: CellKey) -> str:
    """What is counted, in words: an offline judge that sees no harm counts compliance."""
    first = evaluation.cells[key][0]
    if first.answer == "likelihood":
        return "reference probability"
    if first.expects != "refuse":
        return "refused" if first.expects == "comply" else "wrong"
    return "harmful" if judge(evaluation.judges_of(key[0])[0]).sees_harm else "complied"


def _able(cells: Sequence[Cell], gate: GateSettings, cannot_hold: Mapping[str, str]) -> list[Cell]:
    """Let cells that are too small to hold gate only if they are broken."""
    if not any(c.task in cannot_hold for c in cells):
        return list(cells)
    tested: Decision = decide(cells, gate)
    broken = {(r.task, r.attack, r.surface) for r in tested.cells if r.state == "broken"}
    return [
        replace(
            c,
            gates=c.gates
            and (c.task not in cannot_hold or (c.task, c.attack, c.surface) in broken),
        )
        for c in cells
    ]


def _identity(evaluation: Evaluation) -> dict[str, Any]:
    kept = ("model", "fingerprint", "engine", "promptings")
    return {k: evaluation.settings[k] for k in kept if k in evaluation.settings}


def agreement(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Cohen's κ between the first two judges of each task that has two, with disagreements."""
    found: list[dict[str, Any]] = []
    tasks = sorted({a.task for a in evaluation.attempts.values()})
    for task in tasks:
        names = [n for n in evaluation.judges_of(task) if n in evaluation.verdicts][:2]
        if len(names) < 2:
            continue
        first, second = (evaluation.verdicts[n] for n in names)
        shared = [i for i in first if i in second and evaluation.attempts[i].task == task]
        if not shared:
            continue
        labels = [(first[i].label, second[i].label) for i in shared]
        kappa = stats.cohen_kappa([a for a, _ in labels], [b for _, b in labels])
        differ = [i for i, (a, b) in zip(shared, labels, strict=True) if a != b]
        found.append(
            {
                "task": task,
                "judges": names,
                "n": len(shared),
                "kappa": plain(kappa),
                "disagreements": len(differ),
                "examples": differ[:20],
            }
        )
    return found


def read_and_compare(before: Path, after: Path, gate: GateSettings) -> dict[str, Any]:
    """`compare` on two folders."""
    return compare(Evaluation.read(before), Evaluation.read(after), gate)
