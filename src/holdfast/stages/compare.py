"""Compare: two evaluation folders → paired differences and the gate's verdict.

Only like is compared with like: the same items, attacks, decoding, judges and judge versions, and
the same rendered text. A difference is an error that names it. Where asking could stop early, the
items asked are the first ones of the seeded order, and no others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast.errors import IncomparableError
from holdfast.files import plain
from holdfast.judges import judge
from holdfast.measuring.evaluation import CellKey, Evaluation
from holdfast.measuring.gate import Cell, Decision, decide, refusal_before
from holdfast.recipe import GateSettings
from holdfast.stages.planning import asking_order
from holdfast.statistics import inference
from holdfast.types import SIDE_OF, Attempt, Surface

FIELDS = ("decoding", "judges", "date", "attacks")
"""Settings that must agree."""


def compare(
    before: Evaluation,
    after: Evaluation,
    gate: GateSettings,
    *,
    serving: str = "serve",
    cannot_hold: Mapping[str, str] | None = None,
    noise: Mapping[CellKey, float] | None = None,
) -> dict[str, Any]:
    """Pair two evaluations, decide, and return the comparison as stored in `7-comparison.json`.

    Args:
        before: the untouched model.
        after: the tuned one.
        gate: budgets and levels.
        serving: the prompting that users meet; its surfaces gate.
        cannot_hold: tasks too small to hold even without any change (from the pre-flight), with
            the reason. They are reported, and still gate when they show that a budget is broken.
        noise: how far each cell moves when nothing is tuned; stands beside the changes and decides
            nothing.

    Raises:
        IncomparableError: the two differ in more than the model.
    """
    check_comparable(before, after, serving)
    cells = list(paired_cells(before, after, gate, serving))
    refusal = _whole_refusal(before, after, gate, serving)
    small = dict(cannot_hold or {})
    decision = decide(_able(cells, gate, small), gate, refusal=refusal)
    return {
        "outcome": decision.outcome,
        "reasons": [*decision.reasons, *(f"{t} does not gate: {why}" for t, why in small.items())],
        "refusal_before": decision.refusal_before,
        "serving": serving,
        "before": _identity(before),
        "after": _identity(after),
        "gate": gate.model_dump(),
        "cells": [
            _with_blocked(_with_noise(plain(cell), noise or {}), before, after)
            for cell in decision.cells
        ],
        "too_small": small,
        "not_run": after.settings.get("not_run", {}),
        "agreement": {"before": agreement(before), "after": agreement(after)},
        "sequential": saved(before, after),
    }


def _with_noise(cell: dict[str, Any], noise: Mapping[CellKey, float]) -> dict[str, Any]:
    """A stored cell with its noise floor, and whether its change is below it; None if unknown."""
    floor = noise.get((cell["task"], cell["attack"], cell["surface"]))
    change = cell["change"]
    within = None if floor is None or change is None else abs(change) <= floor
    return {**cell, "noise": floor, "within_noise": within}


def _with_blocked(cell: dict[str, Any], before: Evaluation, after: Evaluation) -> dict[str, Any]:
    """A stored cell with how many of its unscored answers a provider's filter kept back."""
    key = (cell["task"], cell["attack"], cell["surface"])
    asked = {a.id for a in after.cells[key]}  # fewer than before, where asking stopped early
    counts = {
        when: sum(bool(a.missing) for a in evaluation.cells[key] if a.id in asked)
        for when, evaluation in (("before", before), ("after", after))
    }
    return {**cell, "blocked": counts}


def _whole_refusal(
    before: Evaluation, after: Evaluation, gate: GateSettings, serving: str
) -> float | None:
    """What the untouched model refuses of all it was asked, however few the tuned one was asked."""
    whole = paired_cells(before, before, gate, serving)
    return refusal_before([c for c in whole if (c.task, c.attack, c.surface) in after.cells])


def saved(before: Evaluation, after: Evaluation) -> dict[str, int] | None:
    """Attempts planned, asked and saved where asking could stop early; None where it could not."""
    if not after.settings.get("sequential"):
        return None
    shared = set(before.cells) & set(after.cells)
    planned = sum(len(before.cells[key]) for key in shared)
    asked = sum(len(after.cells[key]) for key in shared)
    return {"planned": planned, "asked": asked, "saved": planned - asked}


def check_comparable(before: Evaluation, after: Evaluation, serving: str = "serve") -> None:
    """Check that two evaluations asked the same things in the same way.

    Surfaces of other promptings than `serving` may be missing on one side: they are not compared.

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
    if before.settings.get("sequential"):
        problems.append("sequential: the earlier evaluation stopped early and lacks items")
    problems += _different_surfaces(before, after, serving)
    problems += _different_items(before, after)
    if problems:
        listed = "\n  ".join(problems[:5])
        raise IncomparableError(
            f"{before.folder} and {after.folder} cannot be compared:\n  {listed}\n"
            "Evaluate both models with the same settings."
        )


def _different_surfaces(before: Evaluation, after: Evaluation, serving: str) -> Iterator[str]:
    if not set(before.cells) & set(after.cells):
        yield "no task, attack and surface in common"
        return
    for key in sorted(set(before.cells) ^ set(after.cells)):
        if Surface.parse(key[2]).prompting == serving:
            side = "before" if key in before.cells else "after"
            yield f"{' '.join(key)}: asked {side} tuning only"


def _different_items(before: Evaluation, after: Evaluation) -> Iterator[str]:
    order = after.settings.get("sequential")
    for key in sorted(set(before.cells) & set(after.cells)):
        earlier = {a.id: a for a in before.cells[key]}
        later = {a.id: a for a in after.cells[key]}
        name = " ".join(key)
        expected = set(earlier)
        if order and stops_early(before.cells[key][0]):
            expected = set(_first_asked(earlier.values(), len(later), order))
        missing = sorted(expected ^ set(later))
        if missing:
            yield f"{name}: {len(missing)} attempts on one side only, such as {missing[0]}"
            continue
        changed = [i for i, a in later.items() if a.prompt != earlier[i].prompt]
        searched = key[1] in after.settings.get("searching", ())  # prompts made for each model
        if changed and not searched:
            yield f"{name}: {len(changed)} prompts differ in their text, such as {changed[0]}"


def _first_asked(attempts: Iterable[Attempt], count: int, order: Mapping[str, Any]) -> list[str]:
    """Ids of the attempts that a sequential evaluation asks first."""
    in_order = sorted(
        attempts, key=lambda a: (asking_order(order["seed"], a.task, a.item), a.sample)
    )
    return [a.id for a in in_order[:count]]


def paired_cells(
    before: Evaluation, after: Evaluation, gate: GateSettings, serving: str
) -> Iterator[Cell]:
    """Cells that both evaluations have, item by item as far as the later one asked."""
    sequential = bool(after.settings.get("sequential"))
    for key in sorted(set(before.cells) & set(after.cells)):
        earlier, later = dict(before.outcomes(key)), dict(after.outcomes(key))
        yield cell_of(
            after.cells[key][0],
            gate,
            serving,
            event=event_name(after, key),
            before=[earlier[i] for i in later],
            after=list(later.values()),
            planned=len(earlier) if sequential and stops_early(after.cells[key][0]) else None,
        )


def stops_early(attempt: Attempt) -> bool:
    """Whether an attempt's cell may be closed before all its items are asked.

    Likelihoods may not: they cost no generation, and a bound that knows only their range says
    little about their small differences. Such cells are asked whole and keep Student's t.
    """
    return attempt.answer != "likelihood"


def cell_of(
    first: Attempt,
    gate: GateSettings,
    serving: str,
    *,
    event: str,
    before: Sequence[float | None],
    after: Sequence[float | None],
    planned: int | None,
) -> Cell:
    """The gate's cell of paired outcomes; `first` is any of its attempts."""
    return Cell(
        side=SIDE_OF[first.expects],
        task=first.task,
        attack=first.attack,
        surface=first.surface,
        gates=gates(Surface.parse(first.surface), gate, serving),
        event=event,
        before=tuple(before),
        after=tuple(after),
        continuous=first.answer == "likelihood",
        planned=planned,
    )


def gates(surface: Surface, gate: GateSettings, serving: str) -> bool:
    """Whether a surface is one that the serving contract exposes (or is listed in `gate.also`)."""
    if surface.name in gate.also:
        return True
    exposed = (
        surface.prompting == serving
        and surface.form == "chat"
        and surface.wrapper in ("plain", "task")
    )
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
        kappa = inference.cohen_kappa([a for a, _ in labels], [b for _, b in labels])
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
