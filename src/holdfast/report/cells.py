"""Cells as they are shown.

The comparison stores the *bad* event of each side, so that more is always worse. Readers think of
capability the other way round: it is shown as correct answers, with the change's sign turned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.files import digest
from holdfast.measuring.evaluation import CellKey, Evaluation
from holdfast.report import words
from holdfast.types import Surface

CONTINUOUS = "reference probability"
SIDE_ORDER = tuple(words.SIDES)


@dataclass(frozen=True, slots=True)
class CellView:
    """One cell in words. `change` to `budget` are shares for the worse, whatever the side."""

    key: CellKey
    side: str
    event: str
    state: str
    gates: bool
    n: int
    before: str
    before_interval: str
    after: str
    after_interval: str
    shown_change: str
    shown_interval: str
    shown_worst: str
    shown_budget: str
    unscored: tuple[int, int]
    change: float | None
    low: float | None
    high: float | None
    worst: float | None
    best: float | None
    budget: float
    max_rate: float | None
    p_broken: float | None
    needed: int | None
    reasons: tuple[str, ...]
    noise: float | None = None
    """How far the cell moves when nothing is tuned, as a share; None where it was not measured."""
    planned: int | None = None
    """Items there were to ask, where asking could stop early."""
    blocked: tuple[int, int] = (0, 0)
    """Of the unscored, those that a provider's content filter kept back."""

    @property
    def unscored_note(self) -> str:
        """Unscored and blocked answers, before and after; empty where there are none."""
        if not any(self.unscored):
            return ""
        told = "unscored {} → {}".format(*self.unscored)
        return told + (", blocked {} → {}".format(*self.blocked) if any(self.blocked) else "")

    @property
    def noise_note(self) -> str:
        """The change beside the noise floor; empty where the floor is not known."""
        if self.noise is None or self.change is None:
            return ""
        floor = f"±{100 * self.noise:.1f}"
        return f"within noise ({floor})" if abs(self.change) <= self.noise else f"noise {floor}"

    @property
    def side_name(self) -> str:
        """`Harm`, `Over-refusal`, `Capability`."""
        return words.SIDES.get(self.side, self.side)

    @property
    def anchor(self) -> str:
        """Where the page shows this cell's answers."""
        return f"cell-{digest(self.key)}"

    @property
    def task(self) -> str:
        """The task asked."""
        return self.key[0]

    @property
    def where(self) -> str:
        """The surface in words."""
        return words.where(self.key[2], self.key[1])

    @property
    def measure(self) -> str:
        """What the two rates are rates of."""
        return words.MEASURES.get(self.event, self.event)

    @property
    def symbol(self) -> str:
        """The state as one character."""
        return words.STATES[self.state][0]

    @property
    def flipped(self) -> bool:
        """Whether what is shown is the complement of what is stored."""
        return self.event in ("wrong", CONTINUOUS)

    @property
    def excess(self) -> float:
        """How far the change is beyond its budget: what ranks cells by trouble."""
        known = self.change if self.state == "broken" else self.worst
        return (1.0 if known is None else known) - self.budget


def view(
    cell: Mapping[str, Any], before: float | None = None, after: float | None = None
) -> CellView:
    """A stored cell as it is shown.

    Args:
        cell: one of the comparison's `cells`.
        before: exact mean of a likelihood cell's losses, where the answers are at hand.
        after: the same after tuning.
    """
    flip = cell["event"] in ("wrong", CONTINUOUS)
    continuous = cell["event"] == CONTINUOUS
    sign = -1 if flip else 1
    ends = [words.points(_times(sign, cell[end])) for end in ("low", "high")]
    return CellView(
        key=(cell["task"], cell["attack"], cell["surface"]),
        side=cell["side"],
        event=cell["event"],
        state=cell["state"],
        gates=cell["gates"],
        n=cell["n"],
        before=_level(cell["before"], flip, continuous, before),
        before_interval="" if continuous else _interval(cell["before"], flip),
        after=_level(cell["after"], flip, continuous, after),
        after_interval="" if continuous else _interval(cell["after"], flip),
        shown_change=words.points(_times(sign, cell["change"])),
        shown_interval=words.between(*(reversed(ends) if flip else ends)),
        shown_worst=words.points(_times(sign, cell["worst"])),
        shown_budget=_budget(cell, sign),
        unscored=(cell["before"]["unscored"], cell["after"]["unscored"]),
        change=cell["change"],
        low=cell["low"],
        high=cell["high"],
        worst=cell["worst"],
        best=cell["best"],
        budget=cell["budget"],
        max_rate=cell["max_rate"],
        p_broken=cell["p_broken"],
        needed=cell["needed"],
        reasons=tuple(cell["reasons"]),
        noise=cell.get("noise"),
        planned=cell.get("planned"),
        blocked=_blocked(cell),
    )


def _blocked(cell: Mapping[str, Any]) -> tuple[int, int]:
    counts = cell.get("blocked") or {}
    return counts.get("before", 0), counts.get("after", 0)


def views(
    comparison: Mapping[str, Any] | None,
    before: Evaluation | None = None,
    after: Evaluation | None = None,
) -> list[CellView]:
    """All cells of a comparison: gating ones first, each side together, plain surfaces first."""
    found = [
        view(cell, mean_loss(before, cell), mean_loss(after, cell))
        for cell in (comparison or {}).get("cells", ())
    ]
    return sorted(found, key=_rank)


def gating(cells: Sequence[CellView]) -> list[CellView]:
    """The cells that decide."""
    return [cell for cell in cells if cell.gates]


def mean_loss(evaluation: Evaluation | None, cell: Mapping[str, Any]) -> float | None:
    """Exact mean of a likelihood cell's outcomes; None for other cells, or without answers."""
    if evaluation is None or cell["event"] != CONTINUOUS:
        return None
    key = (cell["task"], cell["attack"], cell["surface"])
    known = [outcome for _, outcome in evaluation.outcomes(key) if outcome is not None]
    return sum(known) / len(known) if known else None


def control_of(cell: CellView, control: Sequence[CellView], serving: str | None) -> CellView | None:
    """The control arm's counterpart: the same cell, as the control itself is served."""
    by_key = {c.key: c for c in control}
    task, attack, surface = cell.key
    served = by_key.get((task, attack, as_served(surface, serving)))
    return served or by_key.get(cell.key)


def as_served(surface: str, serving: str | None) -> str:
    """A surface's name under another serving prompting."""
    try:
        parsed = Surface.parse(surface)
    except ValueError:
        return surface
    if serving is None or parsed.prompting != "serve":
        return surface
    return Surface(parsed.wrapper, serving, parsed.form, parsed.prefill).name


def _rank(cell: CellView) -> tuple[Any, ...]:
    side = SIDE_ORDER.index(cell.side) if cell.side in SIDE_ORDER else len(SIDE_ORDER)
    try:
        s = Surface.parse(cell.key[2])
        place = (s.form != "chat", s.prompting != "serve", s.wrapper != "plain", s.prefill)
    except ValueError:
        place = (True, True, True, 0)
    return (not cell.gates, side, cell.task, place, cell.key)


def _times(sign: int, value: float | None) -> float | None:
    return None if value is None else sign * value


def _level(rate: Mapping[str, Any], flip: bool, continuous: bool, exact: float | None) -> str:
    if not rate["n"]:
        return words.NOTHING
    value = rate["events"] / rate["n"] if exact is None else exact
    value = 1 - value if flip else value
    return f"{value:.3f}" if continuous else words.percent(value)


def _interval(rate: Mapping[str, Any], flip: bool) -> str:
    if not rate["n"]:
        return ""
    low, high = (1 - rate["high"], 1 - rate["low"]) if flip else (rate["low"], rate["high"])
    return f"{100 * low:.1f}–{100 * high:.1f}"


def _budget(cell: Mapping[str, Any], sign: int) -> str:
    budget = words.points(sign * cell["budget"])
    limit = cell["max_rate"]
    if limit is None:
        return budget
    least = (
        f"at least {words.percent(1 - limit)}" if sign < 0 else f"at most {words.percent(limit)}"
    )
    return f"{budget}, {least}"
