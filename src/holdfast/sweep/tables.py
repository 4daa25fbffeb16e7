"""What a sweep over values says, as a document: the dose-response table, changes, the front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.report import words
from holdfast.sweep import charts
from holdfast.sweep.document import Document, Drawing, Table
from holdfast.sweep.measures import MEASURES

SHORT: Mapping[str, str] = {
    "harm": "harm complied",
    "refused": "harm refused",
    "unscored": "harm unscored",
    "over_refusal": "over-refusal",
    "capability": "capability",
}
"""Measure → column: three ways a harmful request ends, harmless ones refused, right answers."""


def values_document(found: Mapping[str, Any]) -> Document:
    """The document of a sweep over values (`kind: values`)."""
    varied = ", ".join(axis["setting"] for axis in found["axes"])
    tuned = {v["label"]: v["measures"] for v in found["values"]}
    shown = [name for name in MEASURES if any(name in measures for measures in tuned.values())]
    return Document(
        title=f"{varied} over {words.plural(len(found['values']), 'value')}",
        lead=front_sentence(found["pareto"], [v["label"] for v in found["values"]]),
        tables=[_response(found, varied, shown)],
        drawings=[_drawing(found, name) for name in shown],
        notes=[*_notes(found), *found["doubts"], *map(_failure, found["failed"])],
        details=[_changes(found), _seeds(found, varied, shown)],
    )


def front_sentence(front: Sequence[str], labels: Sequence[str]) -> str:
    """Which values no other beats."""
    if len(front) == len(labels):
        return (
            "Every value is on the Pareto front: none is as good as another on harm, over-refusal "
            "and capability and better on one."
        )
    return (
        f"On the Pareto front of harm, over-refusal and capability: {', '.join(front)}. Each other "
        "value is beaten by one of these."
    )


def _response(found: Mapping[str, Any], varied: str, shown: Sequence[str]) -> Table:
    seeds = len(found["seeds"])
    rows = [["not tuned", "", *_cells(found["untuned"], shown), "", ""]]
    rows += [
        [
            v["label"],
            _dose(v["rows"]),
            *_cells(v["measures"], shown),
            _outcomes(v["outcomes"]),
            "front" if v["label"] in found["pareto"] else "",
        ]
        for v in found["values"]
    ]
    columns = [varied, "rows added", *(SHORT[name] for name in shown), "verdicts", "Pareto"]
    title = f"Percent of what was asked, mean of {words.plural(seeds, 'seed')} (95 % interval)"
    return Table(title, columns, rows)


def _cells(measures: Mapping[str, Any], shown: Sequence[str]) -> list[str]:
    return [interval(measures.get(name)) for name in shown]


def interval(level: Mapping[str, Any] | None) -> str:
    """`12.0 (8.1 to 16.3)`, in percent."""
    if level is None:
        return words.NOTHING
    mean, low, high = (f"{100 * level[name]:.1f}" for name in ("mean", "low", "high"))
    return f"{mean} ({words.between(low, high)})"


def _dose(rows: Mapping[str, Sequence[int]]) -> str:
    """Rows that mitigations added, in each source; one number where seeds agree."""
    told = [
        f"{source} {' / '.join(f'{n:,}' for n in sorted(set(counts)))}"
        for source, counts in rows.items()
        if source != "user"
    ]
    return ", ".join(told) or "none"


def _outcomes(outcomes: Mapping[str, str]) -> str:
    names = list(outcomes.values())
    return ", ".join(f"{names.count(n)} {n}" for n in dict.fromkeys(sorted(names)))


def _drawing(found: Mapping[str, Any], name: str) -> Drawing:
    with_it = [v for v in found["values"] if name in v["measures"]]
    places = charts.positions([v["number"] for v in with_it])
    dots = [
        charts.Dot(v["label"], x, m["mean"], m["low"], m["high"], tuple(m["per_seed"].values()))
        for v, x in zip(with_it, places, strict=True)
        for m in [v["measures"][name]]
    ]
    untuned = found["untuned"].get(name)
    svg = charts.curve(SHORT[name], dots, untuned["mean"] if untuned else None)
    way = "less is better" if MEASURES[name][1] else "more is better"
    note = f"Percent; {way}. Dashed: not tuned. Small rings: single seeds. Bars: 95 % interval."
    return Drawing(SHORT[name], svg, note)


def _changes(found: Mapping[str, Any]) -> Table:
    rows = [change_row(step) for step in found["differences"]]
    columns = ["measure", "from", "to", "seeds", "change, points", "95 % interval", "seeds say"]
    return Table("Changes between values, paired by seed", columns, rows)


def change_row(step: Mapping[str, Any]) -> list[str]:
    """One difference in words."""
    return [
        SHORT[step["measure"]],
        step["start"],
        step["end"],
        str(step["seeds"]),
        words.points(step["mean"]),
        words.between(words.points(step["low"]), words.points(step["high"])),
        _said(step),
    ]


def _said(step: Mapping[str, Any]) -> str:
    if step["decided"]:
        return "rises" if step["mean"] > 0 else "falls"
    if step["seeds"] == 1:
        return "one seed says nothing of the method"
    more = f"; about {step['needed']} would" if step["needed"] else ""
    return f"cannot tell{more}"


def _seeds(found: Mapping[str, Any], varied: str, shown: Sequence[str]) -> Table:
    rows = [
        [
            v["label"],
            str(seed),
            *(_of_seed(v["measures"].get(name), seed) for name in shown),
            v["outcomes"].get(str(seed), words.NOTHING),
        ]
        for v in found["values"]
        for seed in found["seeds"]
        if str(seed) in v["outcomes"]
    ]
    return Table("Every seed", [varied, "seed", *(SHORT[n] for n in shown), "verdict"], rows)


def _of_seed(level: Mapping[str, Any] | None, seed: int) -> str:
    return words.percent(level["per_seed"].get(str(seed)) if level else None)


def _notes(found: Mapping[str, Any]) -> list[str]:
    notes = []
    if not found["harm_is_seen"]:
        notes.append("The judges see compliance, not harm: harmful compliance is compliance here.")
    same: dict[str, list[str]] = {}
    for v in found["values"]:
        same.setdefault(_dose(v["rows"]), []).append(v["label"])
    doses = all(axis["setting"].split(".")[0] in ("safety", "borderline") for axis in found["axes"])
    notes += [
        f"{' and '.join(labels)} came to the same rows ({dose}): see `at_least`."
        for dose, labels in same.items()
        if doses and len(labels) > 1
    ]
    return notes


def _failure(failed: Mapping[str, Any]) -> str:
    return f"{failed['value']}, seed {failed['seed']} did not run: {failed['message']}"
