"""What a template grid says, as a document: a table and a heat map per measure, and one pair."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.report import words
from holdfast.sweep import charts
from holdfast.sweep.document import Document, Drawing, Table
from holdfast.sweep.grid import SHOWN, UNTUNED, pair_label
from holdfast.sweep.measures import MEASURES
from holdfast.sweep.tables import change_row, interval

NAMES: Mapping[str, str] = {
    "harm": "Harmful compliance",
    "over_refusal": "Over-refusal",
    "capability": "Task accuracy",
    "refused": "Harmful requests refused",
    "unscored": "Harmful requests unscored",
}
RULE = (
    "Rule: lowest harmful compliance among pairs whose task accuracy is within {budget:.0f} points "
    "of the best; ties by lower over-refusal, then higher accuracy, then the order given."
)


def grid_document(found: Mapping[str, Any]) -> Document:
    """The document of a template grid (`kind: grid`)."""
    places = {(c["train"], c["serve"]): c["measures"] for c in found["cells"]}
    measured = [name for name in (*SHOWN, "refused", "unscored") if _has(places, name)]
    notes = [
        "The row “not tuned” is the untouched model; on the diagonal a model is served as trained.",
        RULE.format(budget=100 * found["budget"]),
        *found["doubts"],
        *(f"{f['value']}, seed {f['seed']} did not run: {f['message']}" for f in found["failed"]),
    ]
    if not found["harm_is_seen"]:
        notes.insert(0, "The judges see compliance, not harm.")
    tables = {name: _table(found, places, name) for name in measured}
    return Document(
        title=f"{len(found['train'])} train × {len(found['serve'])} serve promptings",
        lead=_sentence(found, places),
        tables=[*(tables[name] for name in SHOWN if name in tables), *_changes(found, chosen=True)],
        drawings=[_drawing(found, places, name) for name in measured if name in SHOWN],
        notes=notes,
        details=[
            *(tables[name] for name in measured if name not in SHOWN),
            *_changes(found, chosen=False),
        ],
    )


def _has(places: Mapping[tuple[str, str], Any], name: str) -> bool:
    return any(name in measures for measures in places.values())


def _sentence(found: Mapping[str, Any], places: Mapping[tuple[str, str], Any]) -> str:
    pair = found["recommended"]
    if pair is None:
        return "No pair can be recommended: harm or task accuracy was not measured."
    cell = places[pair["train"], pair["serve"]]
    told = ", ".join(
        f"{NAMES[name].lower()} {words.percent(cell[name]['mean'])}"
        for name in SHOWN
        if name in cell
    )
    return f"Recommended: train with `{pair['train']}`, serve with `{pair['serve']}` ({told})."


def _table(found: Mapping[str, Any], places: Mapping[tuple[str, str], Any], name: str) -> Table:
    rows = [
        [row, *(interval(places.get((row, column), {}).get(name)) for column in found["serve"])]
        for row in (UNTUNED, *found["train"])
    ]
    seeds = words.plural(len(found["seeds"]), "seed")
    title = f"{NAMES[name]}, percent of what was asked, mean of {seeds} (95 % interval)"
    return Table(title, ["trained with \\ served with", *found["serve"]], rows)


def _changes(found: Mapping[str, Any], *, chosen: bool) -> list[Table]:
    """Differences paired by seed: the recommended pair's, or all."""
    pair = found["recommended"]
    label = pair_label(**pair) if pair else ""
    steps = [s for s in found["differences"] if not chosen or s["end"] == label]
    if not steps:
        return []
    columns = ["measure", "from", "to", "seeds", "change, points", "95 % interval", "seeds say"]
    what = "The recommended pair" if chosen else "Every pair"
    title = f"{what} against its diagonal, paired by seed"
    return [Table(title, columns, [change_row(step) for step in steps])]


def _drawing(found: Mapping[str, Any], places: Mapping[tuple[str, str], Any], name: str) -> Drawing:
    pair = found["recommended"] or {}
    cells = {}
    for (row, column), measures in places.items():
        if name not in measures:
            continue
        one = measures[name]
        chosen = (row, column) == (pair.get("train"), pair.get("serve"))
        mark = "chosen" if chosen else "diagonal" if row == column else ""
        seeds = ", ".join(words.percent(v) for v in one["per_seed"].values())
        title = f"trained {row}, served {column}: {interval(one)} percent; seeds {seeds}"
        cells[row, column] = charts.Heat(one["mean"], words.percent(one["mean"]), title, mark)
    svg = charts.heat_map(
        NAMES[name], [UNTUNED, *found["train"]], found["serve"], cells, worse=MEASURES[name][1]
    )
    note = "Rows: trained with. Columns: served with. Framed: recommended. Dashed: the diagonal."
    return Drawing(NAMES[name], svg, note)
