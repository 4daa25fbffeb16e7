"""The shelf of judges: batches of attempts in, one verdict each out.

A judge never raises on what a model wrote; what it cannot read is `unscored` with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from holdfast.errors import RecipeError
from holdfast.registry import Shelf
from holdfast.types import Attempt, Expects, Verdict

T = TypeVar("T")


class Judge(Protocol):
    """Reads answers."""

    name: str
    sides: frozenset[Expects]
    """Which items' answers it can judge."""
    sees_harm: bool
    """Whether `full_compliance` means harmful specifics were given. An offline judge that sees
    only that the request was not refused reports *compliance*, never harm."""

    @property
    def version(self) -> str:
        """Changes whenever the same answer could get another verdict."""

    def judge(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        """One verdict per attempt, in order."""


JUDGES: Shelf[Callable[..., Judge]] = Shelf("judges")


FROM_FILE: dict[str, Callable[[Path], Callable[..., Judge]]] = {}
"""File ending → what makes a factory of a file in which a user describes a judge."""


def judge(name: str, settings: Mapping[str, Any] | None = None) -> Judge:
    """Build a judge; one with a model loads it when it is first asked.

    Args:
        name: on the shelf, or a file that describes a judge; `NAME@MODEL` gives it another model:
            a folder, a Hub id, `http://HOST:PORT/v1#MODEL` or `openai:MODEL`.
        settings: of the judge.

    Raises:
        RecipeError: no such judge, a file that describes none, or a model for one without.
    """
    known = JUDGES.names()
    plain, at, model = name.partition("@")
    ending = Path(plain).suffix
    if plain not in known and ending in FROM_FILE:
        factory = FROM_FILE[ending](Path(plain).expanduser())
        return factory(name=name, **({"model": model} if at else {}), **(settings or {}))
    factory = JUDGES.get(plain)
    if not at:
        return factory(**(settings or {}))
    if not getattr(factory, "takes_model", False):
        raise RecipeError(f"The judge {plain!r} has no model; write {plain} in place of {name!r}.")
    if not model:
        raise RecipeError(f"{name!r} ends where a model was expected: write {plain}@MODEL.")
    return factory(name=name, model=model, **(settings or {}))


def cannot_run(reader: Judge) -> str | None:
    """What a judge lacks before it can run, with the cure; None for one that lacks nothing.

    Weights that only have to be downloaded are not lacking.
    """
    found: str | None = getattr(reader, "unavailable", None)
    return found


def cannot_gate(reader: Judge) -> str | None:
    """Why a judge's verdicts may not decide a gate, with the cure; None: they may."""
    found: str | None = getattr(reader, "cannot_gate", None)
    return found


_HELD: dict[tuple[str, ...], Any] = {}


def hold(key: tuple[str, ...], load: Callable[[], T]) -> T:
    """A judge's model, loaded once however often the judge is built; one at a time is held."""
    if key not in _HELD:
        _HELD.clear()  # before the next one is loaded: two seldom fit
        _HELD[key] = load()
    held: T = _HELD[key]
    return held


def release() -> None:
    """Let go of the judge model that is held, so that another model finds room."""
    _HELD.clear()
