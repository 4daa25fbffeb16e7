"""The three sweeps as the command line asks for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.errors import RecipeError
from holdfast.models import quiet_libraries
from holdfast.progress import show
from holdfast.recipe import Recipe, load_recipe
from holdfast.sweep.axes import read_axis, read_seeds
from holdfast.sweep.document import Document, on_terminal, write_document
from holdfast.sweep.dose import EXIT_OF, dose_document, find_dose
from holdfast.sweep.grid import read_promptings, sweep_grid
from holdfast.sweep.grid_tables import grid_document
from holdfast.sweep.tables import values_document
from holdfast.sweep.values import sweep_values


@dataclass(frozen=True, slots=True)
class Wanted:
    """The options of `holdfast sweep`, as typed."""

    axes: tuple[str, ...] = ()
    seeds: str | None = None
    dose: str | None = None
    grid: str | None = None
    train: str | None = None
    serve: str | None = None


def sweep_command(
    recipe: Path, overrides: Sequence[str], wanted: Wanted, output: Path
) -> tuple[int, Path]:
    """One of the three sweeps.

    Returns:
        The exit code (0 done or confirmed, 1 no dose passes, 2 an arm did not run, 3 not
        confirmed) and the page.

    Raises:
        RecipeError: options that do not belong together.
        HoldfastError: anything that stops every arm.
    """
    loaded = load_recipe(recipe, overrides)
    if loaded.train.with_ != "holdfast":
        raise RecipeError(
            f"A sweep tunes its own arms, and `train.with` is {loaded.train.with_!r}. Take it "
            "away, or run each arm as a recipe of its own."
        )
    auto = wanted.dose == "auto" or loaded.safety.dose == "auto"
    _check(wanted, auto=auto)
    quiet_libraries()
    if auto:
        overrides = [*overrides, *_AUTO] if wanted.dose == "auto" else overrides
        return _dose(_reader(recipe, overrides), output)
    if wanted.grid is not None:
        return _templates(_reader(recipe, overrides), wanted, output)
    return _values(_reader(recipe, overrides), wanted, output)


_AUTO = ("safety.dose=auto", *(f"safety.{way}=null" for way in ("count", "share", "ratio")),
         "safety.at_least=0")  # fmt: skip


def _check(wanted: Wanted, *, auto: bool) -> None:
    for option, value, known in (
        ("--dose", wanted.dose, "auto"), ("--grid", wanted.grid, "templates"),
    ):  # fmt: skip
        if value not in (None, known):
            raise RecipeError(f"{option} {value} is unknown. The only one there is: {known}.")
    kinds = {"--set": bool(wanted.axes), "--dose auto": auto, "--grid templates": wanted.grid}
    asked = [name for name, given in kinds.items() if given]
    if len(asked) != 1:
        said = f"not {' and '.join(asked)} together" if asked else "and none was given"
        raise RecipeError(
            f"A sweep is one of --set KEY=VALUES, --dose auto and --grid templates, {said}."
        )
    if auto and wanted.seeds is not None:
        raise RecipeError(
            "--dose auto ends in a verdict about one trained model, so it takes one seed: set it "
            "with `seed=0`, without --seeds."
        )
    if wanted.grid is not None and wanted.train is None:
        raise RecipeError(
            "--grid templates needs --train (and --serve, if they differ), such as "
            "--train none,holdfast-default."
        )
    if wanted.grid is None and (wanted.train or wanted.serve):
        raise RecipeError("--train and --serve belong to --grid templates.")


def _reader(recipe: Path, overrides: Sequence[str]) -> Callable[[Sequence[str]], Recipe]:
    return lambda more: load_recipe(recipe, [*overrides, *more])


def _values(
    read: Callable[[Sequence[str]], Recipe], wanted: Wanted, output: Path
) -> tuple[int, Path]:
    axes = [read_axis(text) for text in wanted.axes]
    found = sweep_values(read, axes, read_seeds(wanted.seeds, read([]).seed), output)
    return _code(found), _tell(output, "sweep", values_document(found), found)


def _dose(read: Callable[[Sequence[str]], Recipe], output: Path) -> tuple[int, Path]:
    found = find_dose(read, output)
    return EXIT_OF[found["outcome"]], _tell(output, "dose", dose_document(found), found)


def _templates(
    read: Callable[[Sequence[str]], Recipe], wanted: Wanted, output: Path
) -> tuple[int, Path]:
    rows = read_promptings(wanted.train or "")
    columns = read_promptings(wanted.serve or wanted.train or "")
    found = sweep_grid(read, rows, columns, read_seeds(wanted.seeds, read([]).seed), output)
    return _code(found), _tell(output, "grid", grid_document(found), found)


def _code(found: dict[str, Any]) -> int:
    """An arm that did not run is the user's to correct; the others are told all the same."""
    return 2 if found["failed"] else 0


def _tell(output: Path, name: str, document: Document, found: dict[str, Any]) -> Path:
    paths = write_document(output, name, document, found)
    show(on_terminal(document))
    return paths["html"]
