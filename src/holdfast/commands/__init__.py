"""What the commands share: the application, and arguments that several of them take.

Each module here holds commands of one kind; importing it puts them on the application.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

EXIT_OF = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}

app = typer.Typer(
    name="holdfast",
    help="Keep a language model's refusals fastened while it is fine-tuned, and prove it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe (YAML).")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings over the recipe's.")
]


def read_recipe(path: Path, overrides: list[str] | None) -> Any:
    """A recipe with the settings of the command line over its own."""
    from holdfast.recipe import load_recipe

    return load_recipe(path, overrides or [])


def read_mapping(pairs: list[str] | None) -> dict[str, str] | None:
    """Column mappings, each written as what=column."""
    from holdfast.errors import RecipeError

    if not pairs:
        return None
    bad = [pair for pair in pairs if "=" not in pair]
    if bad:
        raise RecipeError(f"Cannot read the column mapping {bad[0]!r}: write it as what=column.")
    return dict(pair.split("=", 1) for pair in pairs)
