"""Many runs of one recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from holdfast.commands import Overrides, RecipeFile, app


@app.command()
def sweep(
    recipe: RecipeFile,
    output: Annotated[Path, typer.Option(help="The sweep's folder; the same command goes on.")],
    overrides: Overrides = None,
    axes: Annotated[
        list[str] | None, typer.Option("--set", help="Values, such as safety.share=0,1%,3%.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Training seeds, such as 0,1,2.")] = None,
    dose: Annotated[
        str | None, typer.Option(help="auto: the smallest share that passes, then confirmed.")
    ] = None,
    grid: Annotated[str | None, typer.Option(help="templates: train × serve promptings.")] = None,
    train: Annotated[str | None, typer.Option(help="Promptings to train with.")] = None,
    serve: Annotated[str | None, typer.Option(help="Promptings to serve with.")] = None,
) -> None:
    """Dose-response over any setting; the smallest dose that passes; the template grid."""
    from holdfast.sweep.commands import Wanted, sweep_command

    wanted = Wanted(tuple(axes or ()), seeds, dose, grid, train, serve)
    code, page = sweep_command(recipe, overrides or [], wanted, output)
    print(page)
    raise typer.Exit(code)
