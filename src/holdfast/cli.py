"""The commands a person types. Each is a few lines around a stage; heavy imports wait inside.

Logs and tables go to standard error, data to standard output. Exit codes: 0 PASS or done, 1 FAIL,
2 user error, 3 INCONCLUSIVE, 4 internal error, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.errors import HoldfastError

EXIT_OF = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}

app = typer.Typer(
    name="holdfast",
    help="Keep a language model's refusals fastened while it is fine-tuned, and prove it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
lab_app = typer.Typer(help="The built-in scale model.", no_args_is_help=True)
app.add_typer(lab_app, name="lab")
contract_app = typer.Typer(help="What is served is what was measured.", no_args_is_help=True)
app.add_typer(contract_app, name="contract")

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe (YAML).")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings over the recipe's.")
]


def main() -> None:
    """Entry point: one clear message for what the user can cure, a traceback for bugs only."""
    try:
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except typer.Abort:
        sys.exit(130)
    except HoldfastError as error:
        _complain(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _complain("Interrupted. Run the same command again to go on.")
        sys.exit(130)
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # a usage error
            _complain(error.format_message())
            sys.exit(2)
        traceback.print_exc()
        _complain("This is a bug in Holdfast; the lines above say where.")
        sys.exit(4)


def _complain(message: str) -> None:
    print(f"holdfast: {message.rstrip()}", file=sys.stderr)


def _recipe(path: Path, overrides: list[str] | None) -> Any:
    from holdfast.recipe import load_recipe

    return load_recipe(path, overrides or [])


# --- the story ------------------------------------------------------------------------------------


@app.command()
def run(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """The whole story: audit, prepare, train, evaluate, compare, report. Resumes."""
    from holdfast.pipeline import run as go
    from holdfast.progress import show
    from holdfast.stages.report import terminal_summary

    loaded = _recipe(recipe, overrides)
    comparison = go(loaded)
    if comparison.get("state") == "waiting":
        _say_waiting(comparison)
        print(Path(loaded.run) / "NEXT.md")
        raise typer.Exit(0)
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
        str | None, typer.Option(help="Exit with 1 on a finding this severe: low, medium, high.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Also write the findings as JSON.")] = None,
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
    from holdfast.load import open_rows
    from holdfast.progress import say, show
    from holdfast.stages import audit as stage

    stage.check_severity(fail_on)
    given = stage.detectors_with(
        judge_name=judge, data_dir=data_dir, model=model, template=template
    )
    rows = open_rows(data, columns=_mapping(columns), split=split, strict=strict)
    found = stage.audit(rows, given=given)
    say(rows.announcement)
    show(stage.table(found))
    ranked = None
    if model is not None and (harmful or safe or model.startswith("lab:")):
        from holdfast import ranking

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
    from holdfast.pipeline import run as go

    loaded = _recipe(recipe, overrides)
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
    """Everything up to the tuned model: 5-model/ in the run folder."""
    from holdfast.pipeline import run as go

    loaded = _recipe(recipe, overrides)
    facts = go(loaded, until="train")
    if facts.get("state") == "waiting":
        _say_waiting(facts)
    names = {"holdfast": "5-model", "external": "3-export", "openai": "5-job"}
    print(Path(loaded.run) / names[loaded.train.with_])


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
) -> None:
    """Attacks × tasks on one model, into an evaluation folder."""
    from holdfast.solo import evaluate_model

    evaluate_model(
        model, output, suite=suite, tasks=task, attacks=attack, judges=judge, system=system,
        data_dir=data_dir, limit=limit, max_new_tokens=max_new_tokens, seed=seed, against=against,
        attack_settings=attack_set,
    )  # fmt: skip
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
    from holdfast.progress import show
    from holdfast.solo import noise_table

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
    from holdfast.progress import say
    from holdfast.rescoring import judge_file

    counts = judge_file(file, judge, output, _mapping(columns))
    say(", ".join(f"{label}: {n:,}" for label, n in sorted(counts.items())))
    print(output)


def _sample(folder: Path, total: int, output: Path, seed: int) -> None:
    from holdfast.labelling import LABELS, write_sample
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
    from holdfast.progress import show
    from holdfast.solo import compare_folders
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


# --- windows --------------------------------------------------------------------------------------


@app.command()
def show(
    recipe: RecipeFile,
    overrides: Overrides = None,
    row: Annotated[int, typer.Option(help="Number of the row, from 0.")] = 0,
    source: Annotated[str | None, typer.Option(help="Only rows of this source.")] = None,
) -> None:
    """One row of the mixture, its tokens coloured by loss kind."""
    from rich.console import Console

    from holdfast.solo import show_row

    Console(soft_wrap=True).print(show_row(_recipe(recipe, overrides), row, source))


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
    from holdfast.progress import say
    from holdfast.solo import stress_rows

    count = stress_rows(
        data, strategy, output, task=task, columns=_mapping(columns), split=split, limit=limit
    )
    say(f"{count:,} rows put as `{strategy}`: a stress test for a defence, not for deployment")
    print(output)


@app.command("list")
def list_command(
    shelf: Annotated[str | None, typer.Argument(help="One shelf only.")] = None,
) -> None:
    """What is on each shelf."""
    from holdfast.solo import shelves

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
    from holdfast import sources
    from holdfast.progress import say

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


# --- the serving contract -------------------------------------------------------------------------


ModelFolder = Annotated[
    Path, typer.Argument(metavar="MODEL_DIR", help="A tuned model's folder, such as 5-model/.")
]


@contract_app.command("check")
def contract_check(
    model: ModelFolder,
    endpoint: Annotated[
        str | None, typer.Option(help="Also check a server, such as http://localhost:8000/v1.")
    ] = None,
    name: Annotated[str | None, typer.Option("--model", help="The model's name there.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds one request may take.")] = 30,
) -> None:
    """Whether a folder, and a server, give the text that was measured (0, broken 1, hidden 3)."""
    from holdfast.contract.check import overall
    from holdfast.contract.verify import verify

    checks = verify(model, endpoint, name, timeout=timeout)
    outcome = overall(checks)
    for check in checks:
        print(check.line, file=sys.stderr)
    rows = [
        {"where": c.where, "case": c.case, "outcome": c.outcome, "reason": c.reason} for c in checks
    ]
    print(json.dumps({"outcome": outcome, "checks": rows}))
    raise typer.Exit({"HOLDS": 0, "BROKEN": 1, "NOT VERIFIABLE": 3}[outcome])


@contract_app.command("show")
def contract_show(model: ModelFolder) -> None:
    """How to serve the model: the prompting, a vLLM line, a Modelfile, an OpenAI client."""
    from holdfast.contract.howto import serving_page
    from holdfast.contract.terms import read_contract

    print(serving_page(read_contract(model), model, shown_as=str(model)), end="")


@lab_app.command("build")
def lab_build(
    output: Annotated[Path, typer.Option(help="Folder for base/ and chat/.")],
    seed: Annotated[int, typer.Option(help="Seed of the whole build.")] = 0,
) -> None:
    """Make the scale model from nothing; prints its quality card."""
    from holdfast.extras import need

    need("torch", extra="train", purpose="building the lab")
    from holdfast.lab.build import build

    print(json.dumps(build(output, seed=seed), indent=2))


@lab_app.command("card")
def lab_card(
    model: Annotated[str, typer.Argument(help="lab:chat, lab:base or a folder.")] = "lab:chat",
) -> None:
    """Measure a lab model's quality card."""
    from holdfast.lab.card import card
    from holdfast.models import load_model, load_tokenizer, quiet_libraries, resolve_model

    quiet_libraries()
    ref = resolve_model(model)
    print(json.dumps(card(load_model(ref), load_tokenizer(ref)), indent=2))


def _mapping(pairs: list[str] | None) -> dict[str, str] | None:
    from holdfast.errors import RecipeError

    if not pairs:
        return None
    bad = [pair for pair in pairs if "=" not in pair]
    if bad:
        raise RecipeError(f"Cannot read the column mapping {bad[0]!r}: write it as what=column.")
    return dict(pair.split("=", 1) for pair in pairs)


if __name__ == "__main__":
    main()
