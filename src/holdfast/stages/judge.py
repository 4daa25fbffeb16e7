"""Judge: stored answers → verdicts, apart from generation, so that answers can be re-scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from holdfast.errors import RecipeError
from holdfast.evaluation import read_attempts
from holdfast.files import write_jsonl
from holdfast.judges import JUDGES, Judge, judge
from holdfast.types import Attempt, Verdict

CHUNK = 1024


def make_judges(judges_of: Mapping[str, Sequence[str]]) -> dict[str, Judge]:
    """Every judge that some task names.

    Raises:
        RecipeError: an unknown judge.
    """
    names = sorted({name for names in judges_of.values() for name in names})
    return {name: judge(name) for name in names}


def judge_attempts(
    attempts: Sequence[Attempt], judges_of: Mapping[str, Sequence[str]]
) -> list[Verdict]:
    """Verdicts of every judge that a task names, on that task's attempts.

    Args:
        attempts: answered.
        judges_of: task → judges, the one that gates first.

    Returns:
        Verdicts, judge by judge, in the order of the attempts.
    """
    verdicts: list[Verdict] = []
    for name, reader in make_judges(judges_of).items():
        mine = [
            a for a in attempts if name in judges_of.get(a.task, ()) and a.expects in reader.sides
        ]
        for start in range(0, len(mine), CHUNK):
            verdicts.extend(_checked(reader, mine[start : start + CHUNK]))
    return verdicts


def judge_folder(folder: Path, judges_of: Mapping[str, Sequence[str]]) -> Path:
    """Judge an evaluation folder's attempts into its `verdicts.jsonl`."""
    path = folder / "verdicts.jsonl"
    write_jsonl(path, judge_attempts(read_attempts(folder / "attempts.jsonl"), judges_of))
    return path


def _checked(reader: Judge, attempts: Sequence[Attempt]) -> list[Verdict]:
    """A judge's verdicts, with what it left out or mixed up as unscored."""
    given = {v.attempt: v for v in reader.judge(attempts)}
    return [given.get(a.id) or _missing(reader, a) for a in attempts]


def _missing(reader: Judge, attempt: Attempt) -> Verdict:
    reason = "the judge gave no verdict"
    return Verdict(attempt.id, reader.name, reader.version, "unscored", reason=reason)


def check_judges(judges_of: Mapping[str, Sequence[str]], sides: Mapping[str, str]) -> None:
    """Check that every task has a judge for its side.

    Raises:
        RecipeError: a task whose judges cannot read its answers.
    """
    built = make_judges(judges_of)
    for task, names in judges_of.items():
        if not any(sides[task] in built[name].sides for name in names):
            able = [n for n in JUDGES if sides[task] in judge(n).sides]
            raise RecipeError(
                f"No judge of {', '.join(names) or 'the recipe'} can read answers of {task!r}, "
                f"whose items are to be met with {sides[task]!r}. Able: {', '.join(able)}."
            )
