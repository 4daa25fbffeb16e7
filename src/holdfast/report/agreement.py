"""Two judges on the same answers: how far they agree, cell by cell, and what they differ on.

Compared is what the gate counts (the event, none, or unscored): two judges may use different labels
for the same thing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.files import digest
from holdfast.measuring.evaluation import CellKey, Evaluation, bad_outcome
from holdfast.report import words
from holdfast.report.examples import LONGEST, Example, Group, Reply
from holdfast.report.material import Material
from holdfast.statistics import inference
from holdfast.types import Attempt

SHOWN = 10
"""Disagreements that the page shows of each arm."""
OVERALL: CellKey = ("", "", "")
"""The key of all cells together."""


@dataclass(frozen=True, slots=True)
class Agreed:
    """Two judges on one cell of one arm, or on all of its cells together."""

    judges: tuple[str, str]
    key: CellKey
    found: inference.Agreement
    differ: int
    """Answers on which the two count differently."""


def agreement(evaluation: Evaluation | None) -> list[Agreed]:
    """The first two judges of every cell that has two; a pair's overall figure stands last."""
    both: dict[tuple[str, str], dict[CellKey, list[Attempt]]] = {}
    for judges, attempt in shared(evaluation):
        key = (attempt.task, attempt.attack, attempt.surface)
        cells = both.setdefault(judges, {})
        cells.setdefault(key, []).append(attempt)
    return [
        _agreed(evaluation, judges, key, attempts)
        for judges, cells in both.items()
        if evaluation is not None
        for key, attempts in [
            *sorted(cells.items()),
            (OVERALL, [a for mine in cells.values() for a in mine]),
        ]
    ]


def shared(evaluation: Evaluation | None) -> Iterator[tuple[tuple[str, str], Attempt]]:
    """Answers that the first two judges of their task both read."""
    if evaluation is None:
        return
    for attempt in evaluation.attempts.values():
        read = [
            name
            for name in evaluation.judges_of(attempt.task)
            if attempt.id in evaluation.verdicts.get(name, {})
        ]
        if len(read) > 1:
            yield (read[0], read[1]), attempt


def _agreed(
    evaluation: Evaluation, judges: tuple[str, str], key: CellKey, attempts: Sequence[Attempt]
) -> Agreed:
    first, second = ([_outcome(evaluation, a, name) for a in attempts] for name in judges)
    differ = sum(a != b for a, b in zip(first, second, strict=True))
    return Agreed(judges, key, inference.cohen_kappa(first, second), differ)


def _outcome(evaluation: Evaluation, attempt: Attempt, judge: str) -> float | None:
    return bad_outcome(attempt.expects, evaluation.verdict(attempt, judge))


# --- as shown -------------------------------------------------------------------------------------


def rows(material: Material) -> list[tuple[str, ...]]:
    """Cell, judges, and their agreement before and after tuning."""
    if material.before is None and material.after is None:
        return _stored(material.comparison or {})
    arms = [
        {(a.judges, a.key): a for a in agreement(evaluation)}
        for evaluation in (material.before, material.after)
    ]
    keys = dict.fromkeys([*arms[0], *arms[1]])
    return [
        (
            "all cells together" if key == OVERALL else f"{key[0]}, {words.where(key[2], key[1])}",
            " and ".join(judges),
            *(_told(arm.get((judges, key))) for arm in arms),
        )
        for judges, key in keys
    ]


def _told(found: Agreed | None) -> str:
    if found is None:
        return words.NOTHING
    return _kappa(found.differ, found.found.n, found.found.kappa, found.found.low, found.found.high)


def _stored(comparison: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The comparison's own figures, by task, where the answers are not at hand."""
    found = comparison.get("agreement") or {}
    sides = [{entry["task"]: entry for entry in found.get(k, ())} for k in ("before", "after")]
    told = []
    for task in sorted({*sides[0], *sides[1]}):
        both = [side.get(task) for side in sides]
        known = next(entry for entry in both if entry)
        told.append((task, " and ".join(known["judges"]), *(_entry(entry) for entry in both)))
    return told


def _entry(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return words.NOTHING
    kappa = entry["kappa"]
    return _kappa(
        entry["disagreements"], entry["n"], kappa.get("kappa"), kappa["low"], kappa["high"]
    )


def _kappa(differ: int, n: int, kappa: float | None, low: float, high: float) -> str:
    start = f"{differ:,} of {n:,} differ"
    if kappa is None:
        return f"{start}; κ undefined"
    ends = words.between(words.decimal(low), words.decimal(high))
    return f"{start}; κ {words.decimal(kappa)} ({ends})"


def overall(material: Material) -> list[str]:
    """One line per pair of judges on the tuned model's answers."""
    return [
        f"{' and '.join(a.judges)}: {_told(a)}"
        for a in agreement(material.after)
        if a.key == OVERALL
    ]


def stored(material: Material) -> list[dict[str, Any]]:
    """The same for `report.json`: arm, judges, cell (`null` for all together), figures."""
    return [
        {
            "arm": arm,
            "judges": list(a.judges),
            "cell": None if a.key == OVERALL else list(a.key),
            "n": a.found.n,
            "differ": a.differ,
            "kappa": a.found.kappa,
            "low": a.found.low,
            "high": a.found.high,
        }
        for arm, evaluation in (("before", material.before), ("after", material.after))
        for a in agreement(evaluation)
    ]


def disagreements(material: Material) -> list[Group]:
    """Answers to read, arm by arm: a fixed random choice of those the two judges differ on."""
    groups = []
    arms = (("Before tuning", material.before), ("After tuning", material.after))
    for arm, evaluation in arms:
        if evaluation is None:
            continue
        differ = [
            (judges, attempt)
            for judges, attempt in shared(evaluation)
            if _outcome(evaluation, attempt, judges[0]) != _outcome(evaluation, attempt, judges[1])
        ]
        differ.sort(key=lambda found: digest(found[1].id))
        shown = tuple(_example(arm, evaluation, *found) for found in differ[:SHOWN])
        if differ:
            groups.append(Group(f"{arm}, the judges differ", len(differ), shown, open=False))
    return groups


def _example(
    arm: str, evaluation: Evaluation, judges: tuple[str, str], attempt: Attempt
) -> Example:
    verdicts = [evaluation.verdict(attempt, name) for name in judges]
    labels = " · ".join(f"{v.judge}: {v.label.replace('_', ' ')}" for v in verdicts)
    reasons = " · ".join(f"{v.judge}: {v.reason}" for v in verdicts if v.reason)
    text = attempt.response
    reply = Reply(
        arm, text[:LONGEST], labels, reasons, attempt.truncated, attempt.tokens,
        cut=max(0, len(text) - LONGEST),
    )  # fmt: skip
    return Example(
        item=attempt.item,
        category=attempt.category,
        request=attempt.request[:LONGEST],
        prefill=attempt.prefill[:LONGEST],
        prompt=attempt.prompt[:LONGEST],
        replies=(reply,),
    )
