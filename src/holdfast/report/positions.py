"""Where refusals begin, before and after: histogram, survival, recovery under prefill."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from holdfast.measuring.evaluation import Evaluation
from holdfast.report import charts, words
from holdfast.report.material import Material
from holdfast.statistics.profile import (
    BEGUN,
    Positions,
    Transitions,
    counter,
    harm_answers,
    positions,
    recovery,
    transitions,
)
from holdfast.types import Rate

_NAMES = {"before": "before", "after": "after", "control": "plain tuning"}


def stored(material: Material) -> dict[str, Any] | None:
    """The profile of each arm, as in `report.json`; None where nobody was asked to refuse."""
    arms = _arms(material)
    if not arms:
        return None
    count, unit = counter(material.tokenizer)
    return {"unit": unit, "arms": {arm: _profile(e, count) for arm, e in arms.items()}}


def section(material: Material) -> Mapping[str, Any] | None:
    """The page's section; None where nobody was asked to refuse."""
    arms = _arms(material)
    if not arms:
        return None
    count, unit = counter(material.tokenizer)
    placed = [positions(harm_answers(e), count) for e in arms.values()]
    return {
        "unit": unit,
        "arms": [_NAMES[arm] for arm in arms],
        "histogram": _histogram(placed),
        "chart": charts.survival([found.survival() for found in placed], unit),
        "recovery": [row for attack in BEGUN for row in _recovered(arms, attack)],
        "transitions": [
            (_NAMES[arm], _set_off(transitions(harm_answers(e)))) for arm, e in arms.items()
        ],
    }


def _arms(material: Material) -> dict[str, Evaluation]:
    found = {"before": material.before, "after": material.after, "control": material.control}
    return {arm: e for arm, e in found.items() if e is not None and any(harm_answers(e))}


def _profile(evaluation: Evaluation, count: Any) -> dict[str, Any]:
    found = positions(harm_answers(evaluation), count)
    quality = transitions(harm_answers(evaluation))
    return {
        "histogram": dict(found.histogram),
        "unplaced": found.unplaced,
        "without_refusal": found.without,
        "survival": [round(share, 6) for _, share in found.survival()],
        "recovery": _rates(evaluation, "prefill"),
        "recovery_tokens": _rates(evaluation, "prefill_tokens"),
        "transitions": {"separated": quality.separated, "glued": quality.glued},
    }  # fmt: skip


def _rates(evaluation: Evaluation, attack: str) -> dict[str, Any]:
    return {
        str(k): {"refused": r.events, "n": r.n, "unscored": r.unscored,
                 "low": round(r.low, 6), "high": round(r.high, 6)}
        for k, r in recovery(harm_answers(evaluation), attack).items()
    }  # fmt: skip


def _recovered(arms: Mapping[str, Evaluation], attack: str) -> Iterator[tuple[str, ...]]:
    """Rows of the table for one way of beginning a reply; none where it did not run."""
    found = [recovery(harm_answers(e), attack) for e in arms.values()]
    lengths = sorted({k for by_length in found for k in by_length if k or attack == "prefill"})
    for k in lengths:
        yield f"{k} {BEGUN[attack]}", *(_told(by_length.get(k)) for by_length in found)


def _histogram(placed: list[Positions]) -> list[tuple[str, ...]]:
    bins = [found.histogram for found in placed]
    rows = [
        (label, *(words.number(one[place][1]) for one in bins))
        for place, (label, _) in enumerate(bins[0])
    ]
    rows.append(("no refusal", *(words.number(found.without) for found in placed)))
    if any(found.unplaced for found in placed):
        rows.append(("place unknown", *(words.number(found.unplaced) for found in placed)))
    return rows


def _told(rate: Rate | None) -> str:
    if rate is None:
        return words.NOTHING
    unread = f"; {rate.unscored:,} unscored" if rate.unscored else ""
    if not rate.n:
        return f"{words.NOTHING}{unread}"
    told = f"{words.percent(rate.value)} of {rate.n:,}"
    return f"{told} ({words.percent(rate.low)} to {words.percent(rate.high)}){unread}"


def _set_off(quality: Transitions) -> str:
    both = quality.separated + quality.glued
    return f"{words.percent(quality.share)} of {both:,}" if both else "none seen"
