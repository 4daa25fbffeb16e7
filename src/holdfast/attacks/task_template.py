"""Attack `task_template`: the request where the task's question stood (black box).

Harm that plain templates hide shows inside the wrapper a model was tuned in (P2 §3d.2, P4 §5c).
Look-alikes are put there too: a model must not refuse everything in the wrapper.
"""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.attacks import ATTACKS, AttackContext
from holdfast.types import Item, Prompt, Surface


@ATTACKS.register("task_template")
class TaskTemplate:
    """The request inside the wrapper that the user's own rows share (P2, P4)."""

    needs: frozenset[str] = frozenset()
    sides = frozenset({"refuse", "comply"})

    def unavailable(self, context: AttackContext) -> str | None:
        """Where the rows share no wrapper there is nothing to put the request into."""
        return None if context.wrap else "the user's rows share no wrapper"

    def prompts(self, item: Item, context: AttackContext) -> Iterator[tuple[Surface, Prompt]]:
        """One prompt: the request in the commonest wrapper."""
        assert context.wrap is not None
        yield Surface(wrapper="task"), Prompt(context.wrap(item))
