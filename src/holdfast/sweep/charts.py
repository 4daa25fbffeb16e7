"""Charts of a sweep as inline SVG: curves against the dose, and heat maps.

As in `report.charts`: positions along x are percentages, everything else pixels; colours come from
the page's style; every mark says its numbers to a screen reader and on hovering.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from holdfast.report import words

HEIGHT = 220
"""Pixels of a curve's drawing."""
EDGE = 4.0
"""Percent of the width left free at both sides."""


@dataclass(frozen=True, slots=True)
class Dot:
    """A measure at one value, as shares."""

    label: str
    x: float
    mean: float
    low: float
    high: float
    seeds: tuple[float, ...]


def positions(numbers: Sequence[float | None]) -> list[float]:
    """Where values stand, 0 to 1: in order at even distances.

    Doses grow by factors (0, 1, 3, 10, 30 %): at even distances each step is seen alike, and the
    axis carries the values themselves.
    """
    last = max(1, len(numbers) - 1)
    return [i / last for i in range(len(numbers))]


def curve(name: str, dots: Sequence[Dot], untuned: float | None) -> Markup:
    """One measure against the values: means joined, intervals as bars, every seed as a point.

    Args:
        name: of the measure.
        dots: in the order of the values.
        untuned: the untouched model's share, drawn as a dashed line.
    """
    grid = Markup("").join(
        Markup(
            '<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
            '<text x="-6" y="{y}" dy="4" text-anchor="end">{t}</text>'
        ).format(y=_y(t / 100), t=t)
        for t in (0, 25, 50, 75, 100)
    )
    base = Markup("")
    if untuned is not None:
        base = Markup(
            '<line class="untuned" x1="0" x2="100%" y1="{y}" y2="{y}"><title>not tuned: {t}</title>'
            "</line>"
        ).format(y=_y(untuned), t=words.percent(untuned))
    joined = Markup("").join(
        Markup('<line class="joined" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(
            _x(a.x), _y(a.mean), _x(b.x), _y(b.mean)
        )
        for a, b in pairwise(dots)
    )
    said = f"{name}: " + "; ".join(f"{d.label}: {_told(d)}" for d in dots)
    return Markup(
        '<svg class="dose" role="img" aria-label="{}" width="100%" height="{}">{}{}{}{}{}</svg>'
    ).format(
        said, HEIGHT, grid, base, joined,
        Markup("").join(_mark(d) for d in dots),
        Markup("").join(
            Markup('<text x="{}" y="{}" dy="20" text-anchor="middle">{}</text>').format(
                _x(d.x), HEIGHT, d.label
            )
            for d in dots
        ),
    )  # fmt: skip


def _mark(dot: Dot) -> Markup:
    seeds = Markup("").join(
        Markup('<circle class="seed" cx="{}" cy="{}" r="2.5"/>').format(_x(dot.x), _y(value))
        for value in dot.seeds
    )
    return Markup(
        '<g><title>{t}</title><line class="interval" x1="{x}" x2="{x}" y1="{low}" y2="{high}"/>'
        '{seeds}<circle class="mean" cx="{x}" cy="{y}" r="5"/></g>'
    ).format(
        t=f"{dot.label}: {_told(dot)}",
        x=_x(dot.x),
        low=_y(dot.low),
        high=_y(dot.high),
        y=_y(dot.mean),
        seeds=seeds,
    )


def _told(dot: Dot) -> str:
    ends = words.between(words.percent(dot.low), words.percent(dot.high))
    return f"{words.percent(dot.mean)} ({ends})"


def _x(share: float) -> str:
    return f"{EDGE + (100 - 2 * EDGE) * share:.2f}%"


def _y(share: float) -> str:
    return f"{HEIGHT * (1 - min(max(share, 0.0), 1.0)):.1f}"


# --- heat map -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Heat:
    """One cell of a heat map."""

    value: float | None
    text: str
    title: str
    mark: str = ""
    """`diagonal`, `chosen`, or nothing."""


ROW = 46
LEFT = 28.0
"""Percent of the width for the names of the rows."""


def heat_map(
    name: str,
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Mapping[tuple[str, str], Heat],
    *,
    worse: bool,
) -> Markup:
    """Rows × columns; the darker, the higher the share; numbers stand in the cells.

    Args:
        name: of the measure.
        rows: train promptings, from the top.
        columns: serve promptings, from the left.
        cells: (row, column) → cell.
        worse: whether more is worse: then cells are red, else green.
    """
    width = (100 - LEFT) / max(1, len(columns))
    height = ROW * (len(rows) + 1)
    head = Markup("").join(
        Markup('<text x="{}%" y="{}" text-anchor="middle">{}</text>').format(
            f"{LEFT + width * (j + 0.5):.2f}", ROW - 14, column
        )
        for j, column in enumerate(columns)
    )
    drawn = Markup("").join(
        _row(row, i, columns, cells, width, worse=worse) for i, row in enumerate(rows, start=1)
    )
    said = f"{name}: " + "; ".join(
        f"trained {row}, served {column}: {cells[row, column].text}"
        for row in rows
        for column in columns
        if (row, column) in cells
    )
    return Markup(
        '<svg class="heat" role="img" aria-label="{}" width="100%" height="{}">{}{}</svg>'
    ).format(said, height, head, drawn)


def _row(
    row: str,
    number: int,
    columns: Sequence[str],
    cells: Mapping[tuple[str, str], Heat],
    width: float,
    *,
    worse: bool,
) -> Markup:
    parts = [
        Markup('<text x="{}%" y="{}" text-anchor="end">{}</text>').format(
            LEFT - 1.5, ROW * number + ROW / 2 + 5, row
        )
    ]
    for j, column in enumerate(columns):
        cell = cells.get((row, column))
        if cell is None:
            continue
        parts.append(
            Markup(
                '<g class="{mark}"><title>{title}</title>'
                '<rect class="{tone}" x="{x:.2f}%" y="{y}" width="{w:.2f}%" height="{h}" '
                'fill-opacity="{o:.3f}"/><rect class="frame" x="{x:.2f}%" y="{y}" width="{w:.2f}%" '
                'height="{h}"/><text x="{m:.2f}%" y="{t}" text-anchor="middle">{text}</text></g>'
            ).format(
                mark=cell.mark,
                title=cell.title,
                tone="bad-heat" if worse else "good-heat",
                x=LEFT + width * j + 0.3,
                y=ROW * number + 2,
                w=width - 0.6,
                h=ROW - 4,
                o=0.05 + 0.6 * (cell.value or 0.0),
                m=LEFT + width * (j + 0.5),
                t=ROW * number + ROW / 2 + 5,
                text=cell.text,
            )
        )
    return Markup("").join(parts)
