"""The papers' claims, re-measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from holdfast.commands import app


@app.command()
def reproduce(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CLAIM|KEY=VALUE]...", help="Claims (all), and settings over base recipes."
        ),
    ] = None,
    paper: Annotated[
        str | None, typer.Option(help="Only claims of one: safeinstr, ptst, derta, mimic, control.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Print the claims and stop.")] = False,
    output: Annotated[Path, typer.Option(help="Folder; the same command goes on.")] = Path(
        "runs/reproduce"
    ),
    seeds: Annotated[str | None, typer.Option(help="Exactly these, such as 0,1,2.")] = None,
    most: Annotated[int, typer.Option(help="Seeds at most, where fewer cannot decide.")] = 8,
    jobs: Annotated[
        int | None, typer.Option(help="Workers; for the lab one a core, else 1.")
    ] = None,
    recipes: Annotated[
        Path | None, typer.Option(help="Folder of base recipes that take the place of ours.")
    ] = None,
    ledger: Annotated[
        Path | None, typer.Option(help="Also write the Markdown ledger here.")
    ] = None,
) -> None:
    """Re-measure the papers' claims, with controls, and write the ledger."""
    from holdfast.reproduce.commands import Wanted, listing, reproduce_command

    if listed:
        print(listing())
        return
    wanted = Wanted(tuple(what or ()), paper, seeds, most, jobs, recipes, ledger)
    code, page = reproduce_command(wanted, output)
    print(page)
    raise typer.Exit(code)
