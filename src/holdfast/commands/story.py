"""The story as commands: the whole of it, and its first stages one by one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.commands import EXIT_OF, Overrides, RecipeFile, app, read_mapping, read_recipe


@app.command()
def run(
    recipe: RecipeFile,
    overrides: Overrides = None,
    until: Annotated[
        str, typer.Option(help="The last stage: audit, prepare, render, before, train, after …")
    ] = "report",
    store: Annotated[
        Path | None,
        typer.Option(help="Folder of finished stages that runs share: nothing is answered twice."),
    ] = None,
) -> None:
    """The whole story: audit, prepare, train, evaluate, compare, report. Resumes."""
    from holdfast.errors import RecipeError, did_you_mean
    from holdfast.job.pipeline import STAGES
    from holdfast.job.pipeline import run as go
    from holdfast.progress import show
    from holdfast.stages.report import terminal_summary
    from holdfast.sweep.store import SharedStages

    if until not in STAGES:
        raise RecipeError(f"--until is no stage: {until!r}. {did_you_mean(until, STAGES)}")
    loaded = read_recipe(recipe, overrides)
    comparison = go(loaded, until=until, store=SharedStages(store) if store else None)
    if comparison.get("state") == "followed":
        return
    if comparison.get("state") == "waiting":
        _say_waiting(comparison)
        print(Path(loaded.run) / "NEXT.md")
        raise typer.Exit(0)
    if STAGES.index(until) < STAGES.index("compare"):
        print(loaded.run)
        return
    show(terminal_summary(comparison))
    print(Path(loaded.run) / "report.html")
    raise typer.Exit(EXIT_OF[comparison["outcome"]])


def _say_waiting(state: dict[str, Any]) -> None:
    print("… WAITING  Somebody else trains now. What to do next:\n", file=sys.stderr)
    print("\n".join(state["instructions"]), file=sys.stderr)


@app.command()
def audit(
    data: Annotated[str, typer.Argument(help="A file, a Hub id, or lab:NAME.")],
    columns: Annotated[
        list[str] | None, typer.Option(help="Column mapping, such as prompt=question.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of a Hub data set.")] = "train",
    fail_on: Annotated[
        str | None,
        typer.Option(help="Exit with 1 on a finding this severe: info, low, medium, high."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the findings as JSON, and beside it their rows.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Make the first bad row an error.")] = False,
    judge: Annotated[
        str | None, typer.Option(help="A guard model that reads every row, such as qwen3guard.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder with benchmark files: which rows repeat them.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Also rank the rows by how much they pull this model.")
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="The train template, to compare with the model's own.")
    ] = None,
    harmful: Annotated[
        str | None, typer.Option(help="Ranking: harmful rows, or triples, to compare with.")
    ] = None,
    safe: Annotated[str | None, typer.Option(help="Ranking: rows that refuse.")] = None,
    method: Annotated[str, typer.Option(help="Ranking: gradient or representation.")] = "gradient",
    top: Annotated[int, typer.Option(help="Ranking: rows kept.")] = 100,
) -> None:
    """What in this data set tends to erode safety; with a model, which rows pull it hardest."""
    from holdfast.progress import say, show
    from holdfast.rows.load import open_rows
    from holdfast.stages import audit as stage

    stage.check_severity(fail_on)
    given = stage.detectors_with(
        judge_name=judge, data_dir=data_dir, model=model, template=template
    )
    rows = open_rows(data, columns=read_mapping(columns), split=split, strict=strict)
    found = stage.audit(rows, given=given)
    say(rows.announcement)
    show(stage.table(found))
    ranked = None
    if model is not None and (harmful or safe or model.startswith("lab:")):
        from holdfast.measuring import ranking

        ranked = ranking.rank(rows, model, harmful=harmful, safe=safe, method=method, top=top)
        show(ranking.table(ranked))
    elif model is not None:
        say("note: rows are not ranked, as there is nothing to compare them with (--harmful)")
    if output is not None:
        stage.write_audit(output, found, rows.announcement, ranked.to_json() if ranked else None)
    if stage.exceeds(found, fail_on):
        raise typer.Exit(1)


@app.command()
def prepare(
    recipe: RecipeFile,
    overrides: Overrides = None,
    export: Annotated[
        str | None,
        typer.Option(help="Also write it for another trainer; see `holdfast list exports`."),
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="Folder of the export [exports/FORMAT in the run folder].")
    ] = None,
) -> None:
    """The mixed training set: 2-mixture.jsonl and 3-rendered/; or for another trainer."""
    from holdfast.errors import RecipeError
    from holdfast.exports import EXPORTS
    from holdfast.exports import export as write_export
    from holdfast.job.pipeline import run as go

    loaded = read_recipe(recipe, overrides)
    if export is None and to is not None:
        raise RecipeError("--to is where an export goes: name its format, such as --export trl.")
    if export is not None:
        EXPORTS.get(export)  # an unknown name is found before the work
    go(loaded, until="render")
    folder = Path(loaded.run).expanduser()
    if export is None:
        print(folder / "2-mixture.jsonl")
    else:
        print(write_export(folder, export, to or folder / "exports" / export))


@app.command()
def train(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Up to the tuned model, 5-model/ in the run folder; also under torchrun."""
    from holdfast.job.pipeline import run as go

    loaded = read_recipe(recipe, overrides)
    facts = go(loaded, until="train")
    if facts.get("state") == "followed":
        return
    if facts.get("state") == "waiting":
        _say_waiting(facts)
    names = {"holdfast": "5-model", "external": "3-export", "openai": "5-job"}
    print(Path(loaded.run) / names[loaded.train.with_])
