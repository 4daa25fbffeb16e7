"""Looking at what is there: rows, shelves, schemas, material, the demo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from holdfast.commands import Overrides, RecipeFile, app, read_mapping, read_recipe


@app.command()
def show(
    recipe: RecipeFile,
    overrides: Overrides = None,
    row: Annotated[int, typer.Option(help="Number of the row, from 0.")] = 0,
    source: Annotated[str | None, typer.Option(help="Only rows of this source.")] = None,
) -> None:
    """One row of the mixture, its tokens coloured by loss kind."""
    from rich.console import Console

    from holdfast.job.solo import show_row

    Console(soft_wrap=True).print(show_row(read_recipe(recipe, overrides), row, source))


@app.command()
def stress(
    data: Annotated[str, typer.Argument(help="Harmless rows: a file, a Hub id, or lab:NAME.")],
    strategy: Annotated[
        str,
        typer.Option(help="benign, aoa, autoif, autoif-aoa, identity-shift or benign-tuning."),
    ],
    output: Annotated[Path, typer.Option(help="JSON lines to write.")],
    task: Annotated[
        str | None, typer.Option(help="The benchmark whose published form DATA has.")
    ] = None,
    columns: Annotated[
        list[str] | None, typer.Option(help="Column mapping, such as prompt=question.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of a Hub data set.")] = "train",
    limit: Annotated[int | None, typer.Option(help="Rows to read at most.", min=1)] = None,
) -> None:
    """Harmless rows put as an attacker would put them: a stress test for a defence."""
    from holdfast.job.solo import stress_rows
    from holdfast.progress import say

    count = stress_rows(
        data,
        strategy,
        output,
        task=task,
        columns=read_mapping(columns),
        split=split,
        limit=limit,
    )
    say(f"{count:,} rows put as `{strategy}`: a stress test for a defence, not for deployment")
    print(output)


@app.command("list")
def list_command(
    shelf: Annotated[str | None, typer.Argument(help="One shelf only.")] = None,
) -> None:
    """What is on each shelf."""
    from holdfast.job.solo import shelves

    for name, things in shelves(shelf).items():
        print(name)
        for thing, summary in things.items():
            print(f"  {thing:<22} {summary}")
    if shelf == "exports":
        from holdfast.exports import capability_table

        print(f"\nwhat each can express\n\n{capability_table()}")


@app.command()
def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="As a page to read.")] = False,
) -> None:
    """JSON Schema of the recipe, for editors; or its reference page."""
    from holdfast.recipe import recipe_schema
    from holdfast.reference import recipe_reference

    print(recipe_reference().rstrip() if markdown else json.dumps(recipe_schema(), indent=2))


@app.command()
def fetch(
    names: Annotated[list[str], typer.Argument(help="Sources or suites, such as standard.")],
    to: Annotated[Path, typer.Option(help="The data folder.")],
) -> None:
    """Everything a connected machine must bring for an offline one."""
    from holdfast.progress import say
    from holdfast.rows import sources

    for done in sources.fetch(names, to, on_done=lambda one: say(f"· {one.source.name}")):
        print(done.path)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder of the demo's runs.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Seed of data and training.")] = 0,
) -> None:
    """The main job on the built-in scale model."""
    from holdfast.demo import run_demo

    raise typer.Exit(0 if run_demo(output, seed) else 1)
