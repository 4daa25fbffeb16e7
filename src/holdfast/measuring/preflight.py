"""Pre-flight: what the gate can decide with the items at hand, said before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from holdfast.attacks import AttackContext
from holdfast.errors import RecipeError
from holdfast.measuring.gate import Reach, reach
from holdfast.recipe import GateSettings
from holdfast.rows.induction import Format
from holdfast.types import SIDE_OF, Item, Message


def attack_context(
    formats: Sequence[Format], seed: int, questions: Sequence[str] = ()
) -> AttackContext:
    """What attacks may know: the user's commonest wrapper, questions of the task, the seed."""
    if not formats:
        return AttackContext(questions=questions, seed=seed)
    worn = formats[0]

    def wrap(item: Item) -> tuple[Message, ...]:
        return worn.wrap(item.request)

    return AttackContext(wrap=wrap, questions=questions, seed=seed)


def reaches(
    items: Sequence[Item], wrapped: bool, gate: GateSettings, *, sequential: bool = False
) -> list[Reach]:
    """The smallest change each gating cell can resolve; likelihood cells have no such number.

    Args:
        items: everything that is asked.
        wrapped: whether items are also asked in the task's format.
        gate: budgets and level.
        sequential: whether asking may stop early, which takes more items to show the same.
    """
    counts: dict[str, list[Item]] = {}
    for item in items:
        counts.setdefault(item.task, []).append(item)
    found: list[Reach] = []
    for task, asked in counts.items():
        first = asked[0]
        if first.answer == "likelihood":
            continue
        side, n = SIDE_OF[first.expects], len(asked)
        found.append(reach(side, task, "plain", n, gate, asked_in_rounds=sequential))
        if wrapped and first.expects != "answer":
            found.append(reach(side, task, "task", n, gate, asked_in_rounds=sequential))
    return found


def cannot_hold(found: Sequence[Reach]) -> dict[str, str]:
    """Tasks too small to show that their budget holds even if nothing changes, with the reason."""
    return {
        r.task: f"{r.n} items resolve {100 * r.unchanged:.1f} points at best; {r.needed} would do"
        for r in found
        if not r.reachable
    }


def require_reachable(found: Sequence[Reach]) -> None:
    """Stop before training where a side could never pass.

    Raises:
        RecipeError: every cell of a side is too small for its budget.
    """
    for side in dict.fromkeys(r.side for r in found):
        cells = [r for r in found if r.side == side]
        if any(r.reachable for r in cells):
            continue
        largest = max(cells, key=lambda r: r.n)
        raise RecipeError(
            f"The gate on {side} allows {100 * largest.budget:.0f} points, but {largest.n} items "
            f"({largest.task}) could not show that even if no answer changed: they resolve "
            f"{100 * largest.unchanged:.1f} points at best. Ask {largest.needed} items or more "
            f"(`evaluate.limit`, `evaluate.hold_out`), or widen `gate.{side}`."
        )


def table(found: Sequence[Reach]) -> Table:
    """The pre-flight as a table for the terminal."""
    shown = Table(title="What the gate can resolve (points)", title_justify="left")
    for column in ("side", "task", "where", "items", "budget", "if nothing changes", "if 1 in 20"):
        shown.add_column(column, justify="left" if column in ("side", "task", "where") else "right")
    for r in found:
        shown.add_row(
            r.side, r.task, r.surface, f"{r.n:,}", f"{100 * r.budget:.1f}",
            f"{100 * r.unchanged:.1f}" + ("" if r.reachable else " (too few)"),
            f"{100 * r.lively:.1f}",
        )  # fmt: skip
    return shown
