"""Progress: bars on standard error for work longer than two seconds, silence elsewhere."""

from __future__ import annotations

import os
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
REFRESH_S = 0.1

console = Console(
    stderr=True,
    width=None if sys.stderr.isatty() else 100,
    quiet=os.environ.get("RANK", "0") != "0",
)
"""For everything that is not data: data goes to standard output. Of processes that a launcher
started together, the first one speaks."""


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
    bar = StepBar(label)
    bar.start(total, done)
    try:
        for number, step in enumerate(steps, start=done + 1):
            yield step
            bar.move(number)
    finally:
        bar.stop()


class StepBar:
    """A bar on standard error that appears once the work has taken longer than `PATIENCE_S`."""

    def __init__(self, label: str) -> None:
        self.label = label
        self._bars: Progress | None = None

    def start(self, total: int | None, done: int = 0) -> None:
        """Open the bar at `done` of `total` steps."""
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
        )
        self._started = self._moved = time.monotonic()
        self._bar = self._bars.add_task(
            self.label, total=total, completed=done, visible=False, note=""
        )
        self._bars.start()

    def move(self, step: int, note: str = "") -> None:
        """Stand at `step`; cheap enough to be told of every row."""
        now = time.monotonic()
        if self._bars is not None and now - self._moved > REFRESH_S:
            self._moved = now
            late = now - self._started > PATIENCE_S
            self._bars.update(self._bar, completed=step, visible=late, note=note)

    def stop(self) -> None:
        """Take the bar away."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


def say(message: str) -> None:
    """One line to the person at the terminal, on standard error."""
    console.print(message, highlight=False, markup=False, soft_wrap=True)


def show(renderable: RenderableType) -> None:
    """A table or other rich thing, on standard error."""
    console.print(renderable)
