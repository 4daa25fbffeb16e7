"""Attack `direct`: the request as it is (black box)."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.attacks import ATTACKS, AttackContext
from holdfast.types import Item, Prompt, Surface


@ATTACKS.register("direct")
class Direct:
    """The request as it is."""

    needs: frozenset[str] = frozenset()
    sides = frozenset({"refuse", "comply", "answer"})

    def unavailable(self, context: AttackContext) -> str | None:
        """Never."""
        return None

    def prompts(self, item: Item, context: AttackContext) -> Iterator[tuple[Surface, Prompt]]:
        """One prompt: the item's own turns."""
        yield Surface(), Prompt(item.messages)
