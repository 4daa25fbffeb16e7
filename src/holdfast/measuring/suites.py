"""Suites: which tasks and attacks an evaluation asks, by size; and the lab's own."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast.errors import MaterialError
from holdfast.tasks import TaskContext, task
from holdfast.types import Item


@dataclass(frozen=True, slots=True)
class Suite:
    """Tasks with the most items asked of each, attacks, and prefill lengths in words."""

    tasks: Mapping[str, int | None]
    attacks: tuple[str, ...] = ("direct", "task_template", "prefill")
    prefill: tuple[int, ...] = (10,)


SUITES: Mapping[str, Suite] = {
    "quick": Suite(
        {"strongreject": 100, "xstest-safe": 100, "gsm8k": 150}, ("direct", "task_template")
    ),
    "standard": Suite(
        {"strongreject": None, "xstest-safe": None, "gsm8k": 200, "arc-easy": 200}, prefill=(10,)
    ),
    "full": Suite(
        {
            "strongreject": None, "harmbench": None, "advbench": None, "xstest-unsafe": None,
            "xstest-safe": None, "gsm8k": 200, "arc-easy": 200, "arc-challenge": 200,
        },
        (
            "direct", "task_template", "task_disguised", "prefill", "code", "self_cipher",
            "jailbreak", "completing",
        ),
        prefill=(5, 10, 20, 40),
    ),
}  # fmt: skip

LAB_SUITES: Mapping[str, Suite] = {
    "quick": Suite(
        {"lab-forbidden": 150, "lab-lookalike": 150, "lab-capability": 250},
        ("direct", "task_template"),
    ),
    "standard": Suite(
        {
            "lab-forbidden": None, "lab-lookalike": None, "lab-capability": None,
            "lab-arithmetic": None, "lab-yesno": None, "lab-choice": None,
        },
        prefill=(5,),
    ),
    "full": Suite(
        {
            "lab-forbidden": None, "lab-lookalike": None, "lab-capability": None,
            "lab-arithmetic": None, "lab-yesno": None, "lab-choice": None,
        },
        (
            "direct", "task_template", "task_disguised", "prefill", "code", "self_cipher",
            "jailbreak", "completing",
        ),
        prefill=(5, 10, 20),
    ),
}  # fmt: skip


def suite_of(name: str, *, lab: bool) -> Suite:
    """A suite by name, for a lab model or a real one."""
    return (LAB_SUITES if lab else SUITES)[name]


def missing_material(tasks: Sequence[str], context: TaskContext) -> list[str]:
    """One line per task whose items are not at hand, with the command that fetches them."""
    found = ((name, task(name).missing(context)) for name in tasks)
    return [f"{name}: {line}" for name, line in found if line]


def require_material(lines: Sequence[str]) -> None:
    """Stop before anything is trained if material is missing.

    Raises:
        MaterialError: with every missing piece in one list.
    """
    if lines:
        listed = "\n  ".join(lines)
        raise MaterialError(f"Some material is not at hand:\n  {listed}")


def gather(
    tasks: Mapping[str, int | None], context: TaskContext, *, seed: int, limit: int | None = None
) -> list[Item]:
    """Items of the tasks, each a seeded choice where there are more than asked for.

    Args:
        tasks: name → most items, None for all.
        context: where the material is.
        seed: of the choice; a larger choice contains a smaller one, and twins go together.
        limit: most items of any task.
    """
    items: list[Item] = []
    for name, most in tasks.items():
        made = task(name)
        found = made.items(context)
        size = min(n for n in (most, limit, len(found)) if n is not None)
        order = list(range(len(found)))
        drawn_as = getattr(made, "drawn_as", "") or name
        random.Random(f"{seed}/{drawn_as}").shuffle(order)  # noqa: S311
        items.extend(found[i] for i in sorted(order[:size]))
    return items
