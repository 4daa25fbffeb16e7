"""Measuring by itself: answers, verdicts, comparisons, reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.commands import EXIT_OF, app, read_mapping


@app.command()
def evaluate(
    model: Annotated[
        str, typer.Argument(help="A folder, a Hub id, lab:chat, or http://HOST/v1#MODEL.")
    ],
    output: Annotated[Path, typer.Option(help="The evaluation folder.")],
    suite: Annotated[str, typer.Option(help="quick, standard or full.")] = "standard",
    task: Annotated[list[str] | None, typer.Option(help="Tasks instead of the suite's.")] = None,
    attack: Annotated[
        list[str] | None, typer.Option(help="Attacks instead of the suite's.")
    ] = None,
    judge: Annotated[
        list[str] | None, typer.Option(help="Judges instead of the tasks' own.")
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="System prompt: a text or the name of a safety prompt.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder with benchmark files.")] = None,
    limit: Annotated[int | None, typer.Option(help="Items per task at most.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the choice of items.")] = 0,
    attack_set: Annotated[
        list[str] | None,
        typer.Option(help="A setting of an attack, such as jailbreak.file=wrappers.jsonl."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="The earlier evaluation folder: ask no further than deciding takes."),
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="What answers for local weights: transformers or vllm.")
    ] = None,
) -> None:
    """Attacks × tasks on one model, into an evaluation folder; also under torchrun."""
    from holdfast.job.solo import evaluate_model
    from holdfast.processes.launch import current

    evaluate_model(
        model, output, suite=suite, tasks=task, attacks=attack, judges=judge, system=system,
        data_dir=data_dir, limit=limit, max_new_tokens=max_new_tokens, seed=seed, against=against,
        attack_settings=attack_set, engine=engine,
    )  # fmt: skip
    if current().leads:
        print(output)


@app.command()
def noise(
    model: Annotated[str, typer.Argument(help="A folder, a Hub id, or lab:chat.")],
    output: Annotated[Path, typer.Option(help="Folder of the repeated evaluations.")],
    repeats: Annotated[int, typer.Option(help="Evaluations under sampled decoding.")] = 3,
    temperature: Annotated[float, typer.Option(help="Of those.")] = 0.7,
    suite: Annotated[str, typer.Option(help="quick, standard or full.")] = "standard",
    task: Annotated[list[str] | None, typer.Option(help="Tasks instead of the suite's.")] = None,
    attack: Annotated[
        list[str] | None, typer.Option(help="Attacks instead of the suite's.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder with benchmark files.")] = None,
    limit: Annotated[int | None, typer.Option(help="Items per task at most.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the choice of items.")] = 0,
) -> None:
    """How far an evaluation moves when the model does not: the noise floor of each cell."""
    from holdfast.job.solo import noise_table
    from holdfast.progress import show

    show(
        noise_table(
            model, output, repeats=repeats, temperature=temperature, suite=suite, tasks=task,
            attacks=attack, data_dir=data_dir, limit=limit, seed=seed,
        )
    )  # fmt: skip
    print(output / "noise.json")


@app.command("judge")
def judge_command(
    file: Annotated[Path, typer.Argument(help="Answers: a run or evaluation folder, or JSONL/CSV "
                                         "with id, prompt, response.")],
    output: Annotated[Path | None, typer.Option(help="Where the verdicts (JSON lines) or the "
                                                "answers to label (CSV) go.")] = None,
    judge: Annotated[str, typer.Option(help="A judge from the shelf.")] = "refusal",
    columns: Annotated[
        list[str] | None, typer.Option(help="Column mapping, such as response=completion.")
    ] = None,
    sample: Annotated[
        int | None, typer.Option(help="Draw so many answers for people to label.")
    ] = None,
    calibrate: Annotated[
        Path | None, typer.Option(help="The labelled file: measure the judge against people.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
) -> None:  # fmt: skip
    """Re-score stored answers; or draw some for people to label, and measure the judge by them."""
    if calibrate is not None:
        _calibrate(file, calibrate, sample)
    elif sample is not None:
        _sample(file, sample, _needed(output, "labels.csv"), seed)
    else:
        _rescore(file, judge, _needed(output, "verdicts.jsonl"), columns)


def _rescore(file: Path, judge: str, output: Path, columns: list[str] | None) -> None:
    from holdfast.measuring.rescoring import judge_file
    from holdfast.progress import say

    counts = judge_file(file, judge, output, read_mapping(columns))
    say(", ".join(f"{label}: {n:,}" for label, n in sorted(counts.items())))
    print(output)


def _sample(folder: Path, total: int, output: Path, seed: int) -> None:
    from holdfast.measuring.labelling import LABELS, write_sample
    from holdfast.progress import say

    drawn = write_sample(folder, total, output, seed=seed)
    say(f"{drawn:,} answers to label. Write one of {', '.join(LABELS)} into the column 'label',")
    say(f"then: holdfast judge {folder} --calibrate {output}")
    print(output)


def _calibrate(folder: Path, labels: Path, sample: int | None) -> None:
    from holdfast.errors import RecipeError
    from holdfast.progress import say, show
    from holdfast.stages import calibrate as stage

    if sample is not None:
        raise RecipeError("--sample draws a file and --calibrate reads one: give one of the two.")
    found = stage.calibrate(folder, labels)
    if stage.left_out(found):
        say(f"! left out: {stage.left_out(found)}")
    show(stage.table(found))
    if found["changes"] or found["control_changes"]:
        show(stage.changes(found))
        say(f"Reports show it from now on: holdfast report {folder}")
    print(folder / stage.FILE)


def _needed(output: Path | None, such_as: str) -> Path:
    from holdfast.errors import RecipeError

    if output is None:
        raise RecipeError(f"--output is missing: name the file to write, such as {such_as}.")
    return output


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="An evaluation folder, or a run folder.")],
    after: Annotated[Path | None, typer.Argument(help="The evaluation folder to compare.")] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Take the gate from this recipe (or gate-only YAML).")
    ] = None,
    harm: Annotated[float | None, typer.Option(help="Points harm may rise [5].")] = None,
    over_refusal: Annotated[
        float | None, typer.Option(help="Points over-refusal may rise [5].")
    ] = None,
    capability: Annotated[
        float | None, typer.Option(help="Points capability may fall [2].")
    ] = None,
    max_rate: Annotated[
        list[str] | None, typer.Option(help="Highest rate of a side, such as harm=10 (percent).")
    ] = None,
    level: Annotated[float | None, typer.Option(help="One-sided confidence [0.95].")] = None,
    max_unscored: Annotated[
        float | None, typer.Option(help="Share of unscored answers a cell may have [0.05].")
    ] = None,
    prefill: Annotated[
        bool | None, typer.Option(help="Whether begun replies gate [no].")
    ] = None,
    also: Annotated[
        list[str] | None, typer.Option(help="A further surface that gates.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for comparison.json and a report.")
    ] = None,
) -> None:  # fmt: skip
    """Two evaluation folders, or one run folder: paired statistics and the gate."""
    from holdfast.job.solo import compare_folders
    from holdfast.progress import show
    from holdfast.stages.report import terminal_summary

    sides = {"harm": harm, "over_refusal": over_refusal, "capability": capability}
    changes: dict[str, Any] = {
        "level": level, "max_unscored": max_unscored, "prefill": prefill, "also": also or None,
    }  # fmt: skip
    changes |= _budgets(sides, max_rate)
    gate = _gate(recipe, {k: v for k, v in changes.items() if v is not None})
    comparison = compare_folders(before, after, gate, output)
    show(terminal_summary(comparison))
    print(json.dumps({"outcome": comparison["outcome"], "reasons": comparison["reasons"]}))
    raise typer.Exit(EXIT_OF[comparison["outcome"]])


def _budgets(
    sides: dict[str, float | None], max_rate: list[str] | None
) -> dict[str, dict[str, Any]]:
    """The sides' budgets that the command line gives: side → what it changes."""
    from holdfast.errors import RecipeError, did_you_mean

    found: dict[str, dict[str, Any]] = {}
    for side, points in sides.items():
        if points is not None:
            found[side] = {"max_change": points}
    for pair in max_rate or ():
        side, equals, percent = pair.partition("=")
        if not equals or side.replace("-", "_") not in sides:
            raise RecipeError(
                f"Cannot read --max-rate {pair!r}: write it as SIDE=PERCENT, such as harm=10. "
                f"{did_you_mean(side, sides)}"
            )
        found.setdefault(side.replace("-", "_"), {})["max_rate"] = percent
    return found


def _gate(recipe: Path | None, changes: dict[str, Any]) -> Any:
    """The gate that a recipe and the command line ask for; None where neither does."""
    from holdfast.recipe import build_gate, load_gate

    if recipe is not None:
        return load_gate(recipe, changes)
    return build_gate({}, changes, where="the command line") if changes else None


@app.command()
def report(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")],
    redact: Annotated[bool, typer.Option(help="Leave model answers out.")] = False,
    model_card: Annotated[
        bool, typer.Option("--model-card", help="Also a section for the model's card.")
    ] = False,
) -> None:
    """One self-contained HTML page, plus JSON, Markdown and JUnit."""
    from holdfast.stages.report import write_report

    for path in write_report(run_folder, redact=redact, model_card=model_card).values():
        print(path)
