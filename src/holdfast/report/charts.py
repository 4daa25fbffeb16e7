"""Charts as inline SVG: intervals against a budget, a loss curve, a bar of shares.

Positions along x are percentages of the drawing's width and everything else is in pixels, so that a
chart fits any screen while its text and marks keep their size. Colours come from the page's style.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from holdfast.report import words

ARM = 20
"""Pixels from one arm of a row to the next."""
LINEAR = 25
"""Points that a linear axis may span and still show a budget of two."""
ROOT_TICKS = (0.0, 1.0, 5.0, 10.0, 20.0, 50.0, 100.0)
POINTS = 240
"""Points of a loss curve at most."""


@dataclass(frozen=True, slots=True)
class Span:
    """One interval, in points for the worse."""

    point: float | None
    low: float | None
    high: float | None
    best: float | None
    worst: float | None
    look: str
    """Class of the mark: a state, or `control`."""
    text: str
    """Said by a screen reader and on hovering."""

    @property
    def ends(self) -> list[float]:
        """All known positions."""
        known = (self.point, self.low, self.high, self.best, self.worst)
        return [value for value in known if value is not None]


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis from `low` to `high`; `root` draws signed square roots."""

    low: float
    high: float
    ticks: tuple[float, ...]
    root: bool = False

    def at(self, value: float) -> str:
        """A position as a percentage of the width."""
        low, high = self._drawn(self.low), self._drawn(self.high)
        here = self._drawn(min(max(value, self.low), self.high))
        return f"{100 * (here - low) / (high - low):.2f}%"

    def _drawn(self, value: float) -> float:
        return math.copysign(math.sqrt(abs(value)), value) if self.root else value


def scale(values: Iterable[float]) -> Scale:
    """A linear axis that shows zero and all values, with round ticks inside."""
    known = [0.0, *values]
    low, high = min(known), max(known)
    room = 0.06 * ((high - low) or 1.0)
    low, high = low - room, high + room
    step = nice_step(high - low)
    first = math.ceil(low / step)
    ticks = tuple(i * step for i in range(first, math.floor(high / step) + 1))
    return Scale(low, high, ticks)


def wide_scale(values: Iterable[float]) -> Scale:
    """`scale`, with square roots beyond `LINEAR` points.

    A change of seventy points and a budget of two have to be read on one axis: square roots keep
    the order and the budgets apart, and the ticks show what they do.
    """
    axis = scale(values)
    if axis.high - axis.low <= LINEAR:
        return axis
    ticks = sorted({s * t for t in ROOT_TICKS for s in (-1, 1)})
    return Scale(axis.low, axis.high, tuple(t for t in ticks if axis.low <= t <= axis.high), True)


def nice_step(width: float, most: int = 6) -> float:
    """1, 2 or 5 times a power of ten, so that at most about `most` steps fit in."""
    rough = width / most
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)


# --- forest plot ----------------------------------------------------------------------------------


def forest_scale(rows: Sequence[tuple[float, Sequence[Span]]]) -> Scale:
    """One axis for all rows: (budget, spans) each."""
    return wide_scale(
        value for budget, spans in rows for value in (budget, *(e for s in spans for e in s.ends))
    )


def forest_row(axis: Scale, budget: float, spans: Sequence[Span]) -> Markup:
    """Intervals of one cell, one arm below the other, against the cell's budget."""
    line = Markup('<line class="budget" x1="{b}" x2="{b}" y1="0" y2="100%"/>')
    return forest_lane(axis, (axis.low, budget), spans, line.format(b=axis.at(budget)))


def forest_lane(
    axis: Scale, area: tuple[float, float] | None, spans: Sequence[Span], line: str = ""
) -> Markup:
    """Intervals on a lane of their own, one below the other.

    Args:
        axis: of the plot.
        area: where the intervals should lie, shaded; None: nowhere in particular.
        spans: the intervals.
        line: drawn below them, such as a budget.
    """
    grid = Markup("").join(
        Markup('<line class="grid{}" x1="{x}" x2="{x}" y1="0" y2="100%"/>').format(
            " zero" if tick == 0 else "", x=axis.at(tick)
        )
        for tick in axis.ticks
    )
    shade = Markup("")
    if area is not None:
        left, right = (float(axis.at(end).removesuffix("%")) for end in area)
        shade = Markup('<rect class="allowed" x="{}%" y="0" width="{}%" height="100%"/>').format(
            f"{left:.2f}", f"{right - left:.2f}"
        )
    top = -ARM / 2 * (len(spans) - 1)
    marks = Markup("").join(_span(axis, span, top + ARM * i) for i, span in enumerate(spans))
    return Markup(
        '<svg class="forest" role="img" aria-label="{said}" width="100%" height="100%">'
        '{shade}{grid}{line}<svg y="50%" overflow="visible">{marks}</svg></svg>'
    ).format(
        said="; ".join(span.text for span in spans),
        shade=shade,
        grid=grid,
        line=line,
        marks=marks,
    )


def forest_axis(axis: Scale, ways: tuple[str, str] = ("← better", "points worse")) -> Markup:
    """The axis below the rows, with its two directions named."""
    digits = 0 if all(tick == round(tick) for tick in axis.ticks) else 1
    labels = Markup("").join(
        Markup('<text x="{}" y="14" text-anchor="middle">{}</text>').format(
            axis.at(tick), words.signed(tick, digits)
        )
        for tick in axis.ticks
    )
    way = f"{ways[1]} (square-root axis) →" if axis.root else f"{ways[1]} →"
    return Markup(
        '<svg class="forest axis" aria-hidden="true" width="100%" height="36">{}'
        '<text class="way" x="0" y="32">{}</text>'
        '<text class="way" x="100%" y="32" text-anchor="end">{}</text></svg>'
    ).format(labels, ways[0], way)


def _span(axis: Scale, span: Span, y: float) -> Markup:
    parts = [Markup("<title>{}</title>").format(span.text)]
    for name, low, high in (("whisker", span.best, span.worst), ("interval", span.low, span.high)):
        if low is not None and high is not None:
            parts.append(
                Markup('<line class="{}" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(
                    name, axis.at(low), axis.at(high), y=y
                )
            )
    if span.point is not None:
        parts.append(
            Markup('<svg x="{}" y="{}" overflow="visible">{}</svg>').format(
                axis.at(span.point), y, _mark(span.look)
            )
        )
    return Markup('<g class="span {}">{}</g>').format(span.look, Markup("").join(parts))


def _mark(look: str) -> Markup:
    """Shapes differ, so that arms and states are told apart without colour."""
    if look == "control":
        return Markup('<path class="mark" d="M0-6L6 0L0 6L-6 0Z"/>')
    if look == "broken":
        return Markup('<rect class="mark" x="-5" y="-5" width="10" height="10"/>')
    return Markup('<circle class="mark" r="5.5"/>')


# --- loss curve -----------------------------------------------------------------------------------


def thinned(values: Sequence[tuple[float, float]], most: int = POINTS) -> list[tuple[float, float]]:
    """At most `most` points: means of neighbours."""
    size = math.ceil(len(values) / most) or 1
    parts = [values[i : i + size] for i in range(0, len(values), size)]
    return [(sum(x for x, _ in p) / len(p), sum(y for _, y in p) / len(p)) for p in parts]


def curve(values: Sequence[tuple[float, float]]) -> Markup:
    """A line through (step, loss); empty for fewer than two finite points."""
    finite = [(x, y) for x, y in values if math.isfinite(x) and math.isfinite(y)]
    if len(finite) < 2:
        return Markup("")
    steps = Scale(finite[0][0], max(finite[-1][0], finite[0][0] + 1), ())
    line = thinned(finite)
    losses = scale(y for _, y in line)
    losses = Scale(0.0, losses.high, tuple(t for t in losses.ticks if t >= 0))
    dots = " ".join(
        f"{steps.at(x).removesuffix('%')},{100 - float(losses.at(y).removesuffix('%')):.2f}"
        for x, y in line
    )
    said = f"training loss from {line[0][1]:.3g} to {line[-1][1]:.3g} over {finite[-1][0]:g} steps"
    return Markup(
        '<svg class="curve" role="img" aria-label="{said}" width="100%" height="170">{grid}'
        '<svg width="100%" height="100%" viewBox="0 0 100 100" preserveAspectRatio="none" '
        'overflow="visible"><polyline points="{dots}"/></svg>'
        '<text x="0" y="100%" dy="20">step {first}</text>'
        '<text x="100%" y="100%" dy="20" text-anchor="end">step {last}</text></svg>'
    ).format(
        said=said,
        grid=_levels(losses),
        dots=dots,
        first=f"{finite[0][0]:g}",
        last=f"{finite[-1][0]:g}",
    )


def _levels(losses: Scale) -> Markup:
    """Horizontal lines with their values."""
    rows = []
    for tick in losses.ticks:
        y = f"{100 - float(losses.at(tick).removesuffix('%')):.2f}%"
        rows.append(
            Markup(
                '<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
                '<text x="-6" y="{y}" dy="4" text-anchor="end">{t}</text>'
            ).format(y=y, t=f"{tick:g}")
        )
    return Markup("").join(rows)


# --- survival -------------------------------------------------------------------------------------


def survival(lines: Sequence[Sequence[tuple[float, float]]], unit: str) -> Markup:
    """Falling lines of (position, share), one an arm, told apart by their dashes; empty without."""
    drawn = [line for line in lines if len(line) > 1]
    if not drawn:
        return Markup("")
    last = max(line[-1][0] for line in drawn)
    along, up = Scale(0.0, last, ()), Scale(0.0, 1.0, (0.0, 0.5, 1.0))
    marks = Markup("").join(
        Markup('<polyline class="arm k{}" points="{}"/>').format(
            number,
            " ".join(
                f"{along.at(x).removesuffix('%')},{100 - float(up.at(y).removesuffix('%')):.2f}"
                for x, y in line
            ),
        )
        for number, line in enumerate(lines)
    )
    said = "; ".join(f"{words.percent(line[len(line) // 2][1])} halfway" for line in drawn)
    return Markup(
        '<svg class="curve" role="img" aria-label="share of refusals that begin later: {said}" '
        'width="100%" height="170">{grid}<svg width="100%" height="100%" viewBox="0 0 100 100" '
        'preserveAspectRatio="none" overflow="visible">{marks}</svg>'
        '<text x="0" y="100%" dy="20">0</text>'
        '<text x="100%" y="100%" dy="20" text-anchor="end">{last} {unit}</text></svg>'
    ).format(said=said, grid=_levels(up), marks=marks, last=f"{last:g}", unit=unit)


# --- shares ---------------------------------------------------------------------------------------


def shares(parts: Sequence[tuple[str, float]]) -> Markup:
    """A bar cut into labelled shares; the page's legend has the same order and colours."""
    total = sum(value for _, value in parts)
    if total <= 0:
        return Markup("")
    drawn, at = [], 0.0
    for i, (label, value) in enumerate(parts):
        width = 100 * value / total
        drawn.append(
            Markup(
                '<rect class="c{}" x="{:.3f}%" y="0" width="{:.3f}%" height="100%">'
                "<title>{}: {} ({})</title></rect>"
            ).format(i % 6, at, width, label, words.number(value), words.percent(value / total))
        )
        at += width
    said = ", ".join(f"{label} {words.percent(value / total)}" for label, value in parts)
    return Markup(
        '<svg class="shares" role="img" aria-label="{}" width="100%" height="18">{}</svg>'
    ).format(said, Markup("").join(drawn))
