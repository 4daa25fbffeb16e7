"""The HTML page: one file, no request to anywhere, no script.

Its security policy allows styles of its own and nothing else. Every text that comes from a model,
a dataset or a recipe is escaped by the template engine and cleaned of control characters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from holdfast import __version__
from holdfast.report import agreement, attacks, charts, people, positions, story, words
from holdfast.report.cells import CellView, control_of, gating, views
from holdfast.report.examples import Arms, CellExamples, examples
from holdfast.report.material import Material
from holdfast.report.verdict import Banner, banner

_BACKQUOTED = re.compile("`([^`]+)`")


@cache
def environment() -> Environment:
    """Templates of the page: escaping always on, whatever a file is called."""
    made = Environment(
        loader=PackageLoader("holdfast.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    made.filters["number"] = words.number
    made.filters["code"] = code
    return made


def render_page(material: Material, *, redact: bool = False) -> str:
    """The page of a run.

    Args:
        material: what was read.
        redact: leave out everything that models and benchmarks wrote: of examples, only ids,
            categories and labels remain.
    """
    shown = _examples(material)
    style = files("holdfast.report").joinpath("page.css").read_text(encoding="utf-8")
    page = environment().get_template("page.html.jinja")
    return page.render(
        **_verdict(material),
        **_story(material),
        style=Markup(style),  # noqa: S704  (ours)
        examples=shown,
        anchors={found.cell.anchor for found in shown},
        redact=redact,
        version=__version__,
    )


def _finalize(value: Any) -> Any:
    """What the template prints: text cleaned, nothing for None."""
    if value is None:
        return ""
    return clean_markup(value) if isinstance(value, str) else value


def clean_markup(value: str) -> str:
    """`words.clean` that leaves markup markup."""
    cleaned = words.clean(value)
    return Markup(cleaned) if isinstance(value, Markup) else cleaned  # noqa: S704  (was markup)


def code(text: str) -> Markup:
    """Escaped text whose `backquoted` pieces are code."""
    return Markup(_BACKQUOTED.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704  (escaped)


def _verdict(material: Material) -> dict[str, Any]:
    cells = views(material.comparison, material.before, material.after)
    arm = material.control_comparison
    plain = views(arm, material.control_before, material.control)
    told: Banner = banner(material.comparison, cells, plain, material.waiting)
    serving = (arm or {}).get("serving")
    return {
        "name": material.name,
        "banner": told,
        "cells": cells,
        "gating": gating(cells),
        "events": sorted({cell.event for cell in cells}),
        "control": arm,
        "forest": forest(gating(cells), plain, serving),
        "paired": [(c, p) for c in gating(cells) if (p := control_of(c, plain, serving))],
        "refusal_before": words.percent((material.comparison or {}).get("refusal_before")),
        "gate": (material.comparison or {}).get("gate", {}),
        "not_run": (material.comparison or {}).get("not_run", {}),
        "by_attack": attacks.table_of_run(material),
        "sequential": (material.comparison or {}).get("sequential"),
    }


def forest(
    cells: Sequence[CellView], control: Sequence[CellView], serving: str | None
) -> Mapping[str, Any] | None:
    """Rows and axis of the plot of changes; None where there is nothing to draw."""
    rows = []
    for cell in cells:
        plain = control_of(cell, control, serving)
        spans = [span(cell)] + ([span(plain, control=True)] if plain else [])
        rows.append((cell, plain, spans))
    if not any(s.ends for _, _, spans in rows for s in spans):
        return None
    axis = charts.forest_scale([(100 * cell.budget, spans) for cell, _, spans in rows])
    drawn = [(c, p, charts.forest_row(axis, 100 * c.budget, spans)) for c, p, spans in rows]
    return {"rows": drawn, "axis": charts.forest_axis(axis)}


def span(cell: CellView, *, control: bool = False) -> charts.Span:
    """A cell's interval for the plot."""
    arm = "plain tuning (control): " if control else ""
    text = (
        f"{arm}{cell.measure} {cell.shown_change} points, interval {cell.shown_interval}, "
        f"at worst {cell.shown_worst}, budget {cell.shown_budget}"
    )
    return charts.Span(
        point=_in_points(cell.change),
        low=_in_points(cell.low),
        high=_in_points(cell.high),
        best=_in_points(cell.best),
        worst=_in_points(cell.worst),
        look="control" if control else cell.state,
        text=text,
    )


def _in_points(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _story(material: Material) -> dict[str, Any]:
    return {
        "facts": story.facts(material),
        "mitigations": story.mitigations(material),
        "doses": story.doses(material),
        "notes": story.notes(material),
        "prompts": story.prompts(material),
        "audit": material.audit,
        "mixture": _bar(story.mixture(material)),
        "budget": _bar(story.token_budget(material)),
        "tally": story.tally(material),
        "curve": charts.curve(story.losses(material)),
        "steps": material.training.get("steps"),
        "positions": positions.section(material),
        "agreement": agreement.rows(material),
        "disagreements": agreement.disagreements(material),
        "against": people.against(material),
        "labels": people.left_out(material),
        "pooled": people.pooled(material),
        "corrected": people.changes(material),
        "stale": material.calibration_is_stale,
        "judges": story.judges(material),
        "sources": story.sources(material),
        "usage": story.usage(material),
        "usage_heads": story.USAGE,
        "provenance": story.provenance(material),
        "evidence": story.evidence(material),
        "commands": story.commands(material),
        "recipe_text": material.recipe_text,
    }


def _bar(parts: Sequence[tuple[str, float]]) -> Mapping[str, Any] | None:
    total = sum(value for _, value in parts)
    if not total:
        return None
    legend = [(label, words.number(v), words.percent(v / total)) for label, v in parts]
    return {"drawn": charts.shares(parts), "legend": legend, "total": words.number(total)}


def _examples(material: Material) -> list[CellExamples]:
    if material.before is None or material.after is None:
        return []
    serving = (material.control_comparison or {}).get("serving")
    arms = Arms(material.before, material.after, material.control, serving)
    cells = views(material.comparison, material.before, material.after)
    return examples(cells, arms)
