"""Single commands on things that lie about: one model, one file of answers, two folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table
from rich.text import Text

from holdfast.errors import DataError, RecipeError, did_you_mean
from holdfast.files import read_object, write_json
from holdfast.measuring.evaluation import Evaluation
from holdfast.measuring.gate import reach
from holdfast.measuring.noise import floors, table
from holdfast.measuring.preflight import cannot_hold
from holdfast.recipe import GateSettings, Recipe
from holdfast.registry import Shelf
from holdfast.stages.compare import compare

BEFORE, AFTER, NOISE = "4-before", "6-after", "4-noise"
"""Where a run folder keeps its two evaluations, and the noise floor."""


def evaluate_model(
    model: str,
    output: Path,
    *,
    suite: str = "standard",
    tasks: Sequence[str] | None = None,
    attacks: Sequence[str] | None = None,
    judges: Sequence[str] | None = None,
    system: str | None = None,
    data_dir: Path | None = None,
    limit: int | None = None,
    max_new_tokens: int | None = None,
    seed: int = 0,
    against: Path | None = None,
    attack_settings: Sequence[str] | None = None,
    engine: str | None = None,
) -> Path:
    """Ask one model everything, judge the answers, and leave an evaluation folder.

    `attack_settings` are written as the recipe's are: `jailbreak.file=wrappers.jsonl`.

    Raises:
        HoldfastError: a model, task, judge or file that is not there.
    """
    from holdfast.api import evaluate

    settings: dict[str, Any] = {
        "suite": suite, "tasks": tasks, "attacks": attacks, "judges": judges, "limit": limit,
        "max_new_tokens": max_new_tokens, "engine": engine,
        "attack": read_attack_settings(attack_settings) if attack_settings else None,
    }  # fmt: skip
    return evaluate(
        model, output, system=system, data_dir=data_dir, seed=seed, against=against,
        **{key: value for key, value in settings.items() if value is not None},
    )  # fmt: skip


def read_attack_settings(pairs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`jailbreak.file=wrappers.jsonl` → `{jailbreak: {file: wrappers.jsonl}}`.

    Raises:
        RecipeError: not of that form.
    """
    found: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        path, equals, text = pair.partition("=")
        name, dot, key = path.strip().partition(".")
        if not (equals and dot and name and key):
            raise RecipeError(
                f"Cannot read the attack setting {pair!r}: write it as ATTACK.SETTING=VALUE, such "
                "as jailbreak.file=wrappers.jsonl."
            )
        try:
            found.setdefault(name, {})[key] = yaml.safe_load(text)
        except yaml.YAMLError:
            found[name][key] = text
    return found


def noise_table(
    model: str,
    output: Path,
    *,
    repeats: int,
    temperature: float,
    data_dir: Path | None = None,
    seed: int = 0,
    **settings: Any,
) -> Table:
    """Measure a model's noise floor, and lay it out for the terminal.

    Raises:
        HoldfastError: a model, task or file that is not there, or fewer than two repetitions.
    """
    from holdfast.api import noise

    given = {key: value for key, value in settings.items() if value is not None}
    found = noise(
        model, output, repeats=repeats, temperature=temperature, data_dir=data_dir, seed=seed,
        **given,
    )  # fmt: skip
    return table(found["cells"])


def compare_folders(
    before: Path, after: Path | None, gate: GateSettings | None, output: Path | None = None
) -> dict[str, Any]:
    """Compare two evaluation folders, or the two of a run folder.

    Args:
        before: an evaluation folder, or a run folder.
        after: the evaluation folder to compare; None for a run folder.
        gate: budgets; None: the defaults, or what the run was decided by.
        output: where `comparison.json` and a report go; None: nowhere.

    Returns:
        The comparison. A run folder's own is read, and decided again only under another gate; the
        folder itself stays as it is.

    Raises:
        DataError: not an evaluation folder.
        IncomparableError: the two differ in more than the model.
    """
    if after is None:
        comparison = _stored(before)
        if gate is not None:
            comparison = _decided_again(before, comparison, gate)
        after, before = before / AFTER, before / BEFORE
    else:
        settings = gate or GateSettings()
        comparison = compare(Evaluation.read(before), Evaluation.read(after), settings)
    if output is not None:
        from holdfast.stages.report import report_comparison

        write_json(output / "comparison.json", comparison)
        report_comparison(comparison, Evaluation.read(before), Evaluation.read(after), output)
    return comparison


def _stored(run: Path) -> dict[str, Any]:
    path = run / "7-comparison.json"
    if not path.is_file():
        raise DataError(
            f"{run} is not a finished run folder (no 7-comparison.json). Give two evaluation "
            "folders, or finish the run with `holdfast run`."
        )
    found = read_object(path)
    if "outcome" not in found:
        raise DataError(f"{path} is no comparison. Run `holdfast run` again.")
    return found


def _decided_again(run: Path, stored: Mapping[str, Any], gate: GateSettings) -> dict[str, Any]:
    """A run's verdicts under another gate, the control arm's too."""
    reaches = [
        reach(
            r["side"], r["task"], r["surface"], r["n"], gate,
            asked_in_rounds=bool(stored.get("sequential")),
        )
        for r in stored.get("reach", ())
    ]  # fmt: skip
    small = cannot_hold(reaches)
    before = Evaluation.read(run / BEFORE)
    serving = stored.get("serving", "serve")
    noise = floors(run / NOISE) if (run / NOISE).is_dir() else None
    result = compare(
        before, Evaluation.read(run / AFTER), gate, serving=serving, cannot_hold=small,
        noise=noise,
    )  # fmt: skip
    arm = stored.get("control")
    if arm:
        control = Evaluation.read(run / "control" / AFTER)
        result["control"] = compare(
            before, control, gate, serving=arm["serving"], cannot_hold=small, noise=noise
        )  # fmt: skip
    return result


def stress_rows(
    data: str,
    strategy: str,
    output: Path,
    *,
    task: str | None = None,
    columns: Mapping[str, str] | None = None,
    split: str = "train",
    limit: int | None = None,
) -> int:
    """Write harmless rows as a stress strategy puts them; returns how many.

    Args:
        data: a file, a Hub id, or `lab:NAME`, whose rows get words that the lab knows.
        strategy: one of `holdfast.rows.stress.STRATEGIES`.
        output: JSON lines of conversations, which every other command reads.
        task: a benchmark on the tasks shelf, for a file in its published form.
        columns: which column holds what, where detection does not do.
        split: of a Hub data set.
        limit: rows read at most.

    Raises:
        RecipeError: an unknown strategy, or a task whose rows cannot be read so.
        DataError: rows that cannot be read.
    """
    from itertools import islice

    from holdfast.files import write_jsonl
    from holdfast.rows.load import open_rows
    from holdfast.rows.stress import LAB, PLAIN, stressed
    from holdfast.tasks.questions import question_rows

    if task is None:
        rows = iter(open_rows(data, columns=columns, split=split))
    else:
        rows = question_rows(task, Path(data).expanduser())
    words = LAB if data.startswith("lab:") else PLAIN
    made = [
        {"id": row.id, "messages": [turn.to_json() for turn in row.messages]}
        for row in stressed(islice(rows, limit), strategy, words)
    ]
    write_jsonl(output, made)
    return len(made)


def show_row(recipe: Recipe, number: int, source: str | None = None) -> Text:
    """One row of a recipe's mixture, its tokens coloured by loss kind.

    Raises:
        DataError: the mixture has no such row.
    """
    from itertools import islice

    from holdfast.job.mixture import MAIN, MixtureJob
    from holdfast.job.rundir import RunFolder
    from holdfast.job.setup import set_up
    from holdfast.rendering.show import coloured

    setup = set_up(recipe)
    with RunFolder(Path(setup.recipe.run).expanduser()).opened() as folder:
        job = MixtureJob(setup, folder)
        job.prepare()
        rows = (r for r in job.mixture(MAIN) if source is None or r.source == source)
        chosen = next(islice(rows, number, None), None)
        if chosen is None:
            kind = f" of source {source!r}" if source else ""
            raise DataError(f"The mixture has no row {number}{kind}.")
        renderer = job.renderer(job.plan.train, recipe.tuning.max_length)
        text = Text(f"{chosen.id} ({chosen.source})\n", style="bold")
        for rendered in renderer.rows([chosen]):
            text.append_text(coloured(job.tokenizer, rendered))
        return text


def shelves(only: str | None = None) -> dict[str, dict[str, str]]:
    """Shelf → name → what it is.

    Raises:
        RecipeError: no such shelf.
    """
    from holdfast.attacks import ATTACKS
    from holdfast.audits import AUDITS
    from holdfast.claims import CLAIMS
    from holdfast.engines import ENGINES
    from holdfast.exports import EXPORTS
    from holdfast.judges import JUDGES
    from holdfast.mitigations import MITIGATIONS
    from holdfast.tasks import TASKS
    from holdfast.templates import template_names, template_summary

    registries: list[Shelf[Any]] = [
        ATTACKS, AUDITS, CLAIMS, ENGINES, EXPORTS, JUDGES, MITIGATIONS, TASKS,
    ]  # fmt: skip
    known = {s.name for s in registries} | {"templates"}
    if only is not None and only not in known:
        raise RecipeError(f"Unknown shelf {only!r}. {did_you_mean(only, known)}")
    found = {s.name: {n: s.summary(n) for n in s} for s in registries if only in (None, s.name)}
    if only in (None, "templates"):
        found["templates"] = {name: template_summary(name) for name in template_names()}
    return found
