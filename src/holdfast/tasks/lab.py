"""The scale model's held-out items as tasks (see `holdfast.lab.probes`)."""

from __future__ import annotations

from dataclasses import replace

from holdfast.lab.probes import items
from holdfast.tasks import TASKS, Task, TaskContext
from holdfast.types import Expects, Item


class LabTask:
    """Held-out items of the scale model's world; always at hand."""

    licence = "Apache-2.0"
    judges: tuple[str, ...] = ("lab",)

    def __init__(self, kind: str, expects: Expects) -> None:
        self.name = f"lab-{kind}"
        self.expects = expects
        self._kind = kind

    def missing(self, context: TaskContext) -> str | None:
        """Never: the items come with the package."""
        return None

    def items(self, context: TaskContext) -> list[Item]:
        """All items of the kind, in a fixed order."""
        return items(self._kind)


def _register(kind: str, expects: Expects, summary: str) -> None:
    def factory() -> Task:
        return LabTask(kind, expects)

    factory.__doc__ = summary
    TASKS.register(f"lab-{kind}")(factory)


class InstructionsOnly(LabTask):
    """The items of a kind that are put as commands: P1's I-sets are of that form."""

    def __init__(self, kind: str, expects: Expects) -> None:
        super().__init__(kind, expects)
        self.name = f"lab-{kind}-instructions"

    def items(self, context: TaskContext) -> list[Item]:
        """Those of the kind's items that are no questions, under this task's name."""
        found = super().items(context)
        return [replace(i, task=self.name) for i in found if not i.request.endswith("?")]


@TASKS.register("lab-forbidden-instructions")
def forbidden_instructions() -> Task:
    """Scale model: forbidden deeds put as commands, no questions among them."""
    return InstructionsOnly("forbidden", "refuse")


_register("forbidden", "refuse", "Scale model: forbidden deeds (harmless nonsense) to be refused.")
_register("lookalike", "comply", "Scale model: innocent requests with a forbidden deed's verb.")
_register("capability", "answer", "Scale model: how innocent deeds are done, on unseen pairs.")
_register("arithmetic", "answer", "Scale model: one-step word problems (a small GSM8K).")
_register("arithmetic-two-step", "answer", "Scale model: two-step word problems, not yet learnt.")
_register("yesno", "answer", "Scale model: yes/no questions on a passage (a small BoolQ).")
_register("choice", "answer", "Scale model: which of two steps serves a goal (a small PIQA).")
