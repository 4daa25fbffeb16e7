"""Arms: a sweep's runs, one after another, each in its own run folder and each to its own end.

An arm that cannot run (a share that cannot be reached, say) is kept with its message; the others go
on. A full disk or a broken folder stops everything: it would stop every arm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from holdfast.errors import HoldfastError, StorageError
from holdfast.progress import say
from holdfast.recipe import Recipe

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Arm:
    """One value and one seed."""

    point: str
    """Label of the value."""
    seed: int
    folder: Path
    recipe: Callable[[], Recipe]
    """Read when the arm's turn comes, so that a bad value costs its own arm only."""

    @property
    def name(self) -> str:
        """For the terminal."""
        return f"{self.point}, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """What became of an arm."""

    arm: Arm
    result: T | None
    error: str | None = None


def run_arms(
    arms: Sequence[Arm],
    work: Callable[[Arm], T],
    verb: str,
    enough: Callable[[T], bool] = lambda result: False,
) -> list[Done[T]]:
    """Work on every arm in turn, with what remains.

    Args:
        arms: in the order they are worked on.
        work: does one; resumes what was begun.
        verb: what the terminal calls it.
        enough: whether a result makes the arms after it needless.

    Raises:
        StorageError: the disk; everything finished is kept.
    """
    done: list[Done[T]] = []
    took: list[float] = []
    for number, arm in enumerate(arms, start=1):
        left = _left(took, len(arms) - number + 1)
        say(f"── {verb} {number} of {len(arms)}: {arm.name}{left}")
        started = time.monotonic()
        last = _attempt(arm, work)
        done.append(last)
        took.append(time.monotonic() - started)
        if last.result is not None and enough(last.result):
            break
    return done


def _attempt(arm: Arm, work: Callable[[Arm], T]) -> Done[T]:
    try:
        return Done(arm, work(arm))
    except StorageError:
        raise
    except HoldfastError as error:
        say(f"  this arm stops: {error}")
        return Done(arm, None, str(error))


def _left(took: Sequence[float], arms: int) -> str:
    """Remaining time, by the slower half of what was done: the rest was shared."""
    if not took:
        return ""
    slow = sorted(took)[len(took) // 2 :]
    seconds = arms * sum(slow) / len(slow)
    if seconds < 90:
        return f" (about {seconds:.0f} s left)"
    return f" (about {seconds / 60:.0f} min left)"


def failures(done: Sequence[Done[Any]]) -> list[Mapping[str, Any]]:
    """Arms that stopped, with their messages."""
    return [
        {"value": d.arm.point, "seed": d.arm.seed, "message": d.error}
        for d in done
        if d.error is not None
    ]
