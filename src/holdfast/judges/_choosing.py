"""Which judges read a task's answers: those that are named, or the task's own and a guard at hand.

What is named and cannot run, or may not decide, is an error before anything is asked.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.errors import MaterialError, RecipeError
from holdfast.judges import cannot_gate, cannot_run, judge
from holdfast.judges._model_judge import ModelJudge
from holdfast.types import Expects

GUARDS = ("qwen3guard", "qwen3guard-0.6b")
"""Ungated guard models of at most 4 B that read harm and refusal, the better one first."""
OFFLINE = ("refusal",)
"""Default judges that a guard is added to."""


def choose(named: Sequence[str] | None, own: Sequence[str], expects: Expects) -> tuple[str, ...]:
    """Judges of a task's answers, the one that gates first.

    Args:
        named: in the recipe or on the command line; None: none.
        own: the task's default.
        expects: what its items are to be met with.

    Returns:
        The named judges that can read such answers, and the task's own where none can. Without
        named ones a guard model whose weights lie on this machine joins the task's own: before
        `refusal` where harm is judged, behind it where over-refusal is.

    Raises:
        RecipeError: the first judge gives no verdict that may decide.
        MaterialError: a named judge lacks what the user has to bring.
    """
    able = [name for name in named or () if expects in judge(name).sides]
    if not able:
        return _with_guard(tuple(own), expects) if named is None else tuple(own)
    for name in able:
        lacking = cannot_run(judge(name))
        if lacking:
            raise MaterialError(lacking)
    reason = cannot_gate(judge(able[0]))
    if reason:
        raise RecipeError(reason)
    return tuple(able)


def guard_at_hand() -> str | None:
    """The best guard model whose weights lie in the local Hub cache."""
    return next((name for name in GUARDS if _at_hand(name)), None)


def announcement(judges: Sequence[str]) -> str:
    """One line on who judges harm, and how sure that is."""
    first = judge(judges[0])
    what = "harm" if first.sees_harm else "compliance, not harm (no guard model is at hand)"
    others = f", with {', '.join(judges[1:])} beside it" if judges[1:] else ""
    return f"· {judges[0]} judges {what}{others}"


def _with_guard(own: tuple[str, ...], expects: Expects) -> tuple[str, ...]:
    guard = guard_at_hand() if own[:1] == OFFLINE else None
    if guard is None or guard in own or expects not in judge(guard).sides:
        return own
    return (guard, *own) if expects == "refuse" else (*own, guard)


def _at_hand(name: str) -> bool:
    found = judge(name)
    return isinstance(found, ModelJudge) and found.reference.path is not None
