"""Progress: bars on standard error for work longer than two seconds, silence elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

T = TypeVar("T")

PATIENCE_S = 2.0
"""Work shorter than this shows no bar."""

console = Console(stderr=True)
"""For everything that is not data: data goes to standard output."""


class _Rate(ProgressColumn):
    """Steps per second."""

    def render(self, task: Task) -> Text:
        """For example `12.3/s`."""
        return Text(f"{task.speed:.1f}/s" if task.speed else "")


def track(
    steps: Iterable[T], label: str, *, total: int | None = None, done: int = 0
) -> Iterator[T]:
    """Yield from `steps` with a bar: rate and remaining time; quiet when not a terminal.

    Args:
        steps: what is left to do.
        label: what is being done.
        total: all steps, those of an earlier, interrupted run included.
        done: steps of that earlier run.
    """
    if not sys.stderr.isatty():
        yield from steps
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    started = time.monotonic()
    with Progress(*columns, console=console, transient=True) as bars:
        bar = bars.add_task(label, total=total, completed=done, visible=False)
        for step in steps:
            yield step
            late = time.monotonic() - started > PATIENCE_S
            bars.update(bar, advance=1, visible=late)


def say(message: str) -> None:
    """One line to the person at the terminal, on standard error."""
    console.print(message, highlight=False, markup=False, soft_wrap=True)


def show(renderable: RenderableType) -> None:
    """A table or other rich thing, on standard error."""
    console.print(renderable)
