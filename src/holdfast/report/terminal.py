"""The verdict on the terminal: a line, the gating cells, the control arm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from holdfast.report import words
from holdfast.report.cells import CellView, control_of, gating, views
from holdfast.report.verdict import banner

WIDTH = 100
STYLES: Mapping[str, str] = {
    "PASS": "bold green",
    "FAIL": "bold red",
    "INCONCLUSIVE": "bold yellow",
    "holds": "green",
    "broken": "red",
    "undecided": "yellow",
    "reported": "dim",
}


def terminal_summary(comparison: Mapping[str, Any]) -> RenderableType:
    """Gating cells and the verdict line, at most 100 columns wide.

    Args:
        comparison: what `compare` returned, or `7-comparison.json`.
    """
    cells = views(comparison)
    arm = comparison.get("control")
    plain = views(arm)
    told = banner(comparison, cells, plain)
    parts: list[RenderableType] = []
    if gating(cells):
        parts.append(_table(comparison, gating(cells), plain))
    line = Text(f"{told.symbol} {told.outcome}", style=STYLES.get(told.outcome, "bold"))
    parts.append(_wrapped(line.append(f"  {told.sentence}", style="default not bold")))
    if told.outcome == "INCONCLUSIVE":
        parts += [_wrapped(Text(f"  · {words.clean(reason)}")) for reason in told.reasons]
    if told.control:
        parts.append(_wrapped(Text(told.control, style="dim")))
    return Group(*parts)


def _table(comparison: Mapping[str, Any], cells: list[CellView], plain: list[CellView]) -> Table:
    serving = (comparison.get("control") or {}).get("serving")
    table = Table(box=None, pad_edge=False, width=WIDTH, header_style="dim")
    table.add_column("")
    table.add_column("cell", ratio=1, overflow="fold")
    table.add_column("counted", overflow="fold")
    for name in ("n", "before", "after", "change", "budget"):
        table.add_column(name, justify="right", no_wrap=name != "budget")
    if plain:
        table.add_column("plain", justify="right", no_wrap=True)
    for cell in cells:
        row = [
            Text(cell.symbol, style=STYLES[cell.state]),
            Text(
                words.clean(", ".join(p for p in (cell.task, cell.where, cell.unscored_note) if p))
            ),
            Text(cell.measure),
            Text(f"{cell.n:,}"),
            Text(cell.before),
            Text(cell.after, style=STYLES[cell.state]),
            Text(cell.shown_change),
            Text(cell.shown_budget),
        ]
        if plain:
            counterpart = control_of(cell, plain, serving)
            row.append(Text(counterpart.after if counterpart else words.NOTHING, style="dim"))
        table.add_row(*row)
    return table


def _wrapped(text: Text) -> RenderableType:
    """A paragraph no wider than the table."""
    holder = Table.grid()
    holder.add_column(max_width=WIDTH, overflow="fold")
    holder.add_row(text)
    return holder
