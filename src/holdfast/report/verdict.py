"""The verdict in words: one sentence, the reasons, and how each side stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.report import words
from holdfast.report.cells import CellView, control_of, gating


@dataclass(frozen=True, slots=True)
class Tile:
    """How one side of the gate stands, by its most troubled gating cell."""

    side: str
    name: str
    state: str
    cell: CellView | None
    """None: nothing gates on this side."""
    control: CellView | None
    count: str

    @property
    def symbol(self) -> str:
        """The state as one character."""
        return words.STATES[self.state][0]


@dataclass(frozen=True, slots=True)
class Banner:
    """What a reader has to know in ten seconds."""

    outcome: str
    """`PASS`, `FAIL`, `INCONCLUSIVE`, or `NO VERDICT` where nothing was compared."""
    sentence: str
    reasons: tuple[str, ...]
    control: str
    """What plain tuning did; empty without a control arm."""
    tiles: tuple[Tile, ...]

    @property
    def symbol(self) -> str:
        """The outcome as one character."""
        return words.OUTCOMES.get(self.outcome, "…")


WAITING = (
    "The untouched model is measured and the rows are exported; the run goes on when `after` "
    "names the tuned model."
)


def _steps(waiting: Mapping[str, Any]) -> list[str]:
    """The numbered steps of the instructions."""
    told = [str(line) for line in waiting.get("instructions", ())]
    return [line.strip() for line in told if line[:1].isdigit() or "holdfast run" in line]


def banner(
    comparison: Mapping[str, Any] | None,
    cells: Sequence[CellView],
    control: Sequence[CellView] = (),
    waiting: Mapping[str, Any] | None = None,
) -> Banner:
    """The verdict of a comparison in words, or what a run waits for."""
    if comparison is None and waiting:
        return Banner("WAITING", WAITING, tuple(_steps(waiting)), "", ())
    if comparison is None:
        return Banner("NO VERDICT", "Nothing has been compared in this folder yet.", (), "", ())
    arm = comparison.get("control")
    return Banner(
        comparison["outcome"],
        sentence(comparison["outcome"], cells),
        reasons_in_words(comparison["reasons"], cells),
        control_sentence(arm, control) if arm else "",
        tuple(_tile(side, cells, control, (arm or {}).get("serving")) for side in words.SIDES),
    )


def sentence(outcome: str, cells: Sequence[CellView]) -> str:
    """Why the verdict is what it is, in one plain sentence."""
    decisive = gating(cells)
    if outcome == "PASS":
        return (
            f"After tuning, {_all(len(decisive))} stays within its budget, even if every answer "
            "that could not be scored is counted against the model."
        )
    broken = [cell for cell in decisive if cell.state == "broken"]
    if outcome == "FAIL" and broken:
        worst = max(broken, key=lambda cell: cell.excess)
        more = f" {len(broken)} of {len(decisive)} gating cells are broken."
        return how_broken(worst) + (more if len(broken) > 1 else "")
    open_cells = [cell for cell in decisive if cell.state == "undecided"]
    if open_cells:
        return (
            f"The evidence does not suffice: {len(open_cells)} of "
            f"{words.plural(len(decisive), 'gating cell')} could go either way."
        )
    return "The evidence does not suffice: a side of the gate was not measured."


def how_broken(cell: CellView) -> str:
    """What happened in a broken cell."""
    subject = words.SUBJECTS.get(cell.event, cell.event)
    place = f"on {cell.task} ({cell.where})"
    if cell.change is not None and cell.change > cell.budget:
        moved = "fell" if cell.flipped else "rose"
        return (
            f"{subject} {moved} from {cell.before} to {cell.after} {place}: "
            f"{cell.shown_change} points where {cell.shown_budget} is allowed."
        )
    return f"{subject} after tuning: {cell.after} {place}; allowed: {cell.shown_budget}."


def control_sentence(arm: Mapping[str, Any], control: Sequence[CellView]) -> str:
    """What the same tuning without mitigations did."""
    decisive = gating(control)
    broken = [cell for cell in decisive if cell.state == "broken"]
    start = f"The same tuning without mitigations: {arm['outcome']}."
    if not broken:
        return start
    return f"{start} {how_broken(max(broken, key=lambda cell: cell.excess))}"


def reasons_in_words(reasons: Sequence[str], cells: Sequence[CellView]) -> tuple[str, ...]:
    """The gate's reasons, one line per cell, with the cell's place in words."""
    told: dict[str, list[str]] = {}
    for reason in reasons:
        place, text = _placed(reason, cells)
        told.setdefault(place, []).append(text)
    general = told.pop("", [])
    return (*general, *(f"{place}: {'; '.join(texts)}" for place, texts in told.items()))


def _placed(reason: str, cells: Sequence[CellView]) -> tuple[str, str]:
    """A reason as its cell in words, and what is said of it.

    The gate counts the bad event; where the page shows its complement, the reason says so.
    """
    for cell in cells:
        stored = f"{cell.side} on {cell.task}, {cell.key[1]} ({cell.key[2]}): "
        if reason.startswith(stored):
            place = f"{cell.side_name} on {cell.task}, {cell.where}"
            text = reason.removeprefix(stored)
            if cell.state == "broken" and text == cell.reasons[0]:
                return place, _evidence(cell)
            counted = " (counted in wrong answers)" if cell.event == "wrong" else ""
            return place, text + counted * ("points" in text)
    for side, name in words.SIDES.items():
        reason = reason.replace(f"nothing gates on {side}", f"nothing gates on {name.lower()}")
    return "", reason


def _evidence(cell: CellView) -> str:
    """What shows that a cell is broken."""
    p = cell.p_broken
    how = "" if p is None else ", p < 0.0001" if p < 1e-4 else f", p = {p:.2g}"
    return (
        f"{cell.measure} {cell.before} → {cell.after}, {cell.shown_change} points "
        f"({cell.shown_interval}; budget {cell.shown_budget}{how})"
    )


def _all(count: int) -> str:
    return "the one gating cell" if count == 1 else f"each of the {count} gating cells"


def _tile(
    side: str, cells: Sequence[CellView], control: Sequence[CellView], serving: str | None
) -> Tile:
    mine = [cell for cell in gating(cells) if cell.side == side]
    name = words.SIDES[side]
    if not mine:
        return Tile(side, name, "undecided", None, None, "nothing gates on this side")
    states = [cell.state for cell in mine]
    state = next((s for s in ("broken", "undecided") if s in states), "holds")
    worst = max((c for c in mine if c.state == state), key=lambda cell: cell.excess)
    count = f"{states.count('holds')} of {words.plural(len(mine), 'gating cell')} hold"
    count += "s" if len(mine) == 1 else ""
    return Tile(side, name, state, worst, control_of(worst, control, serving), count)
