"""Single commands on things that lie about: one model, one file of answers, two folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from holdfast.errors import DataError, RecipeError, did_you_mean
from holdfast.evaluation import Evaluation
from holdfast.files import read_json, write_json, write_jsonl
from holdfast.progress import track
from holdfast.recipe import GateSettings, Recipe
from holdfast.registry import Shelf
from holdfast.stages.compare import compare
from holdfast.types import Attempt, Verdict

CHUNK = 1024


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
) -> Path:
    """Ask one model everything, judge the answers, and leave an evaluation folder.

    Raises:
        HoldfastError: a model, task, judge or file that is not there.
    """
    from holdfast.api import evaluate

    settings: dict[str, Any] = {
        "suite": suite, "tasks": tasks, "attacks": attacks, "judges": judges, "limit": limit,
        "max_new_tokens": max_new_tokens,
    }  # fmt: skip
    return evaluate(
        model, output, system=system, data_dir=data_dir, seed=seed,
        **{key: value for key, value in settings.items() if value is not None},
    )  # fmt: skip


def compare_folders(
    before: Path, after: Path | None, gate: GateSettings, output: Path | None
) -> dict[str, Any]:
    """Compare two evaluation folders, or re-read the comparison of a run folder.

    Raises:
        DataError: not an evaluation folder.
        IncomparableError: the two differ in more than the model.
    """
    if after is None:
        if not (before / "7-comparison.json").is_file():
            raise DataError(
                f"{before} is not a finished run folder (no 7-comparison.json). Give two "
                "evaluation folders, or finish the run with `holdfast run`."
            )
        return dict(read_json(before / "7-comparison.json"))
    earlier, later = Evaluation.read(before), Evaluation.read(after)
    comparison = compare(earlier, later, gate)
    if output is not None:
        from holdfast.stages.report import report_comparison

        write_json(output / "comparison.json", comparison)
        report_comparison(comparison, earlier, later, output)
    return comparison


def judge_file(
    file: Path, name: str, output: Path, columns: Mapping[str, str] | None = None
) -> Counter[str]:
    """Judge stored answers into JSON lines with `id`, `label`, `score`, `judge`, `reason`.

    Returns:
        How often each label was given.

    Raises:
        DataError: a file that cannot be read as answers, or an id that occurs twice.
    """
    from holdfast.judges import judge

    reader = judge(name)
    attempts = list(read_answers(file, columns or {}))
    counts: Counter[str] = Counter()

    def rows() -> Iterator[dict[str, Any]]:
        starts = range(0, len(attempts), CHUNK)
        for start in track(starts, f"judge ({name})", total=len(starts)):
            for verdict in reader.judge(attempts[start : start + CHUNK]):
                counts[verdict.label] += 1
                yield verdict_row(verdict)

    write_jsonl(output, rows())
    return counts


def verdict_row(verdict: Verdict) -> dict[str, Any]:
    """A verdict as other tools read it."""
    return {
        "id": verdict.attempt,
        "label": verdict.label,
        "score": verdict.score,
        "judge": f"{verdict.judge}@{verdict.version}",
        "refusal_start": verdict.refusal_start,
        "reason": verdict.reason,
    }


def read_answers(file: Path, columns: Mapping[str, str]) -> Iterator[Attempt]:
    """Attempts from a file of answers: our own, or rows with id, prompt and response.

    Raises:
        DataError: a row without a response, or an id that occurs twice.
    """
    from holdfast.rows.records import read_records

    names = {**{k: k for k in ("id", "prompt", "response")}, **columns}
    seen: set[str] = set()
    for record in read_records(file):
        if record.problem or not isinstance(record.value, Mapping):
            raise DataError(f"{file}, line {record.line}: {record.problem or 'not an object'}.")
        attempt = _attempt(record.value, names, record.number, f"{file}, line {record.line}")
        if attempt.id in seen:
            raise DataError(f"{file}, line {record.line}: the id {attempt.id!r} occurs twice.")
        seen.add(attempt.id)
        yield attempt


def _attempt(row: Mapping[str, Any], names: Mapping[str, str], number: int, where: str) -> Attempt:
    if "attack" in row and "surface" in row:
        return Attempt(**row)
    answer = row.get(names["response"])
    if not isinstance(answer, str):
        hint = did_you_mean(names["response"], row)
        raise DataError(
            f"{where}: no text in the column {names['response']!r}. {hint} "
            "Name it with --columns response=COLUMN."
        )
    request = str(row.get(names["prompt"]) or "")
    return Attempt(
        id=str(row.get(names["id"], number)), item=str(number), task="file", expects="refuse",
        attack="direct", surface="plain/serve/chat/0", sample=0, request=request, prompt=request,
        prefill="", response=answer, truncated=False, tokens=0,
    )  # fmt: skip


def show_row(recipe: Recipe, number: int, source: str | None = None) -> Text:
    """One row of a recipe's mixture, its tokens coloured by loss kind.

    Raises:
        DataError: the mixture has no such row.
    """
    from itertools import islice

    from holdfast.mixture import MAIN, MixtureJob
    from holdfast.rundir import RunFolder
    from holdfast.setup import set_up
    from holdfast.show import coloured

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
    from holdfast.engines import ENGINES
    from holdfast.judges import JUDGES
    from holdfast.mitigations import MITIGATIONS
    from holdfast.tasks import TASKS
    from holdfast.templates import template_names, template_summary

    registries: list[Shelf[Any]] = [ATTACKS, AUDITS, ENGINES, JUDGES, MITIGATIONS, TASKS]
    known = {s.name for s in registries} | {"templates"}
    if only is not None and only not in known:
        raise RecipeError(f"Unknown shelf {only!r}. {did_you_mean(only, known)}")
    found = {s.name: {n: s.summary(n) for n in s} for s in registries if only in (None, s.name)}
    if only in (None, "templates"):
        found["templates"] = {name: template_summary(name) for name in template_names()}
    return found
