"""The shelf of tasks: sets of items, each with a source, a licence and what it expects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from holdfast.registry import Shelf
from holdfast.types import Expects, Item


@dataclass(frozen=True, slots=True)
class TaskContext:
    """Where a task may look for its material."""

    data_dir: Path | None = None
    offline: bool = False


class Task(Protocol):
    """A set of items."""

    name: str
    expects: Expects
    licence: str
    """SPDX id, or the words of the source."""
    judges: tuple[str, ...]
    """Default judges of its answers, best first."""

    def missing(self, context: TaskContext) -> str | None:
        """None when the items are at hand, else one line: what is missing and how to get it."""

    def items(self, context: TaskContext) -> list[Item]:
        """All items, in a fixed order.

        Raises:
            MaterialError: the material is missing or is not what its checksum says.
        """


TASKS: Shelf[Callable[[], Task]] = Shelf("tasks")


def task(name: str) -> Task:
    """Build a task from the shelf."""
    return TASKS.get(name)()
