"""The shelf of attacks: each puts an item's request somewhere else.

The smallest one:

    @ATTACKS.register("direct")
    class Direct:
        \"\"\"The request as it is.\"\"\"
        needs = frozenset()
        def prompts(self, item, context):
            yield Surface(), Prompt(item.messages)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from holdfast.registry import Shelf
from holdfast.types import Item, Message, Prompt, Surface


@dataclass(frozen=True, slots=True)
class AttackContext:
    """What an attack may know besides the item."""

    wrap: Callable[[Item], tuple[Message, ...]] | None = None
    """Puts an item's request into the format the user's own rows share; None where they share
    none."""
    questions: Sequence[str] = ()
    """What the user's held-out rows ask, without the format they share; sorted."""
    prefills: Mapping[str, str] = field(default_factory=dict)
    """Item id → a complying answer to cut prefixes from: the user's harmful answers, or this
    model's own answers judged harmful."""
    seed: int = 0


class Attack(Protocol):
    """Turns an item into prompts; deterministic given the context's seed."""

    needs: frozenset[str]
    """What an engine must be able to do: `prefill`, `raw`, `logprobs`, `gradients`."""
    sides: frozenset[str]
    """Which of `refuse`, `comply`, `answer` items it applies to."""

    def unavailable(self, context: AttackContext) -> str | None:
        """Why this attack cannot run here, or None."""

    def prompts(self, item: Item, context: AttackContext) -> Iterator[tuple[Surface, Prompt]]:
        """Prompts for one item with the surface each stands on; prompting is added later."""


ATTACKS: Shelf[Callable[..., Attack]] = Shelf("attacks")


def attack(name: str, settings: Mapping[str, Any] | None = None) -> Attack:
    """Build an attack from the shelf with its settings."""
    return ATTACKS.get(name)(**(settings or {}))
