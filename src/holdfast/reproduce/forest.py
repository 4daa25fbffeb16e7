"""The forest plot: every part of every claim on one axis, shaded where the claim puts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from holdfast.report import charts
from holdfast.reproduce.sentences import VERDICTS, effect_text, figure, sign, verdict_text

Part = Mapping[str, Any]


LANE = 31
"""Characters of a lane in Markdown."""
HEAD = f"{'−100':<{LANE // 2}}0{'+100':>{LANE // 2}}"


def lane(part: Part) -> str:
    """One part in characters, from -100 to +100 points: mean, interval, and zero."""
    drawn = ["·"] * LANE
    if part["low"] is not None:
        for place in range(_place(part["low"]), _place(part["high"]) + 1):
            drawn[place] = "─"
    drawn[LANE // 2] = "│" if drawn[LANE // 2] == "·" else "┼"
    if part["mean"] is not None:
        drawn[_place(part["mean"])] = "●"
    return "".join(drawn)


def _place(share: float) -> int:
    return round((min(max(share, -1.0), 1.0) + 1) / 2 * (LANE - 1))


def plot(claims: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Rows and axis for the page; None where nothing was measured."""
    spans = [
        (claim, part, _span(part, VERDICTS[claim["verdict"]][1]))
        for claim in claims
        for part in claim["parts"]
    ]
    if not any(span.ends for _, _, span in spans):
        return None
    axis = charts.wide_scale(end for _, _, span in spans for end in span.ends)
    return {
        "axis": charts.forest_axis(axis, ("← A lower", "A higher, points")),
        "rows": [
            {
                "id": claim["id"],
                "first": part is claim["parts"][0],
                "name": part["name"],
                "sign": sign(part),
                "figure": "" if claim["control"] else figure(claim),
                "effect": effect_text(part),
                "verdict": verdict_text(claim),
                "tone": VERDICTS[claim["verdict"]][1],
                "drawn": _row(axis, part, span),
            }
            for claim, part, span in spans
        ],
    }


def _span(part: Part, look: str) -> charts.Span:
    point, low, high = (
        None if part[key] is None else 100 * part[key] for key in ("mean", "low", "high")
    )
    seeds = [100 * value for value in part["differences"].values()]
    return charts.Span(
        point,
        low,
        high,
        min(seeds, default=None),
        max(seeds, default=None),
        look,
        f"{part['name']}: {effect_text(part)}",
    )


def _row(axis: charts.Scale, part: Part, span: charts.Span) -> Markup:
    margin = 100 * (part["margin"] or 0.0)
    area = {
        "lower": (axis.low, 0.0),
        "falling": (axis.low, 0.0),
        "higher": (0.0, axis.high),
        "rising": (0.0, axis.high),
        "same": (-margin, margin),
    }.get(part["expected"])
    return charts.forest_lane(axis, area, [span])
