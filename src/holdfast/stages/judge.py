"""Judge: stored answers → verdicts, apart from generation, so that answers can be re-scored.

Verdicts are kept batch by batch: a killed judging goes on where it stopped, as judge models cost
time or money.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from holdfast.errors import DataError, HoldfastError, RecipeError
from holdfast.files import (
    append_jsonl,
    drop_torn_line,
    read_jsonl,
    sha256_file,
    write_jsonl,
)
from holdfast.judges import JUDGES, Judge, judge, release
from holdfast.measuring.evaluation import LABELS_OF, read_attempts
from holdfast.progress import say
from holdfast.types import Attempt, Expects, Verdict

CHUNK = 1024
FAILED = "the judge failed"
"""How the reason of an answer begins on which the judge raised."""
LONGEST = 120
"""Characters of a judge's own words that a reason repeats."""


def make_judges(judges_of: Mapping[str, Sequence[str]]) -> dict[str, Judge]:
    """Every judge that some task names.

    Raises:
        RecipeError: an unknown judge.
    """
    names = sorted({name for names in judges_of.values() for name in names})
    return {name: judge(name) for name in names}


def judge_attempts(
    attempts: Sequence[Attempt],
    judges_of: Mapping[str, Sequence[str]],
    kept: KeptVerdicts | None = None,
) -> list[Verdict]:
    """Verdicts of every judge that a task names, on that task's attempts.

    Args:
        attempts: answered.
        judges_of: task → judges, the one that gates first.
        kept: verdicts of an interrupted judging, and where those of each batch are kept.

    Returns:
        Verdicts, judge by judge, in the order of the attempts.

    Raises:
        DataError: two attempts of one id.
    """
    check_ids(attempts)
    verdicts: list[Verdict] = []
    for name, reader in make_judges(judges_of).items():
        mine = [
            a for a in attempts if name in judges_of.get(a.task, ()) and a.expects in reader.sides
        ]
        verdicts.extend(_judged(reader, mine, kept))
    return verdicts


def _judged(reader: Judge, attempts: Sequence[Attempt], kept: KeptVerdicts | None) -> list[Verdict]:
    """One judge's verdicts, in the order of the attempts."""
    known = kept.of(reader) if kept else {}
    todo = [a for a in attempts if a.id not in known]
    size = getattr(reader, "batch", CHUNK)  # of a judge model no reply is lost beyond one batch
    for start in range(0, len(todo), size):
        found = judge_batch(reader, todo[start : start + size])
        known.update((v.attempt, v) for v in found)
        if kept:
            kept.add(found)
    return [known[a.id] for a in attempts]


def judge_folder(folder: Path, judges_of: Mapping[str, Sequence[str]]) -> Path:
    """Judge an evaluation folder's attempts into its `verdicts.jsonl`.

    Says how many answers a judge failed on, if it did.
    """
    path, kept = folder / "verdicts.jsonl", KeptVerdicts(folder)
    try:
        verdicts = judge_attempts(read_attempts(folder / "attempts.jsonl"), judges_of, kept)
    finally:
        release()
    write_jsonl(path, verdicts)
    kept.clear()
    failed = Counter(v.judge for v in verdicts if v.reason.startswith(FAILED))
    for name, count in sorted(failed.items()):
        say(f"! the judge {name} failed on {count:,} answers; they are unscored (see {path})")
    return path


class KeptVerdicts:
    """Verdicts on their way, in a folder's `.verdicts.part.jsonl`; of other answers, none."""

    def __init__(self, folder: Path) -> None:
        """Look for what an interrupted judging of the same answers left."""
        self.path = folder / ".verdicts.part.jsonl"
        self._mark = {"attempts": sha256_file(folder / "attempts.jsonl")}
        self._found: list[Verdict] = []
        if self.path.exists():
            drop_torn_line(self.path)
            self._found = self._read()

    def of(self, reader: Judge) -> dict[str, Verdict]:
        """Attempt → verdict of this judge in this version."""
        mine = [v for v in self._found if v.judge == reader.name]
        return {v.attempt: v for v in mine if v.version == reader.version}

    def add(self, verdicts: Sequence[Verdict]) -> None:
        """Keep a batch."""
        mark = [] if self.path.exists() else [self._mark]
        append_jsonl(self.path, [*mark, *verdicts])

    def clear(self) -> None:
        """The verdicts stand in their file now."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> list[Verdict]:
        try:
            mark, *rows = read_jsonl(self.path)
            if mark == self._mark:
                return [Verdict(**row) for row in rows]
        except (TypeError, ValueError):
            pass  # not what was written there
        self.path.unlink()
        return []


# --- what a judge may say -------------------------------------------------------------------------


def judge_batch(reader: Judge, attempts: Sequence[Attempt]) -> list[Verdict]:
    """One verdict per attempt, in order, whatever the judge does.

    A judge is as untrusted as the answers it reads: what it leaves out, mixes up, says twice, says
    in labels of another side, or fails on is `unscored` with the reason. Only a `HoldfastError`,
    whose cure is the user's (a missing key, a wrong setting), goes through.

    Args:
        reader: the judge.
        attempts: (N,) answered, of distinct ids.

    Returns:
        (N,) verdicts under the judge's own name.
    """
    found: dict[str, list[Verdict]] = {}
    failures = {a.id: a.missing for a in attempts if a.missing}  # there is no answer to read
    for verdict in _asked(reader, [a for a in attempts if not a.missing], failures):
        if isinstance(verdict, Verdict) and isinstance(verdict.attempt, str):
            found.setdefault(verdict.attempt, []).append(verdict)
    return [_settled(reader, a, found.get(a.id, []), failures.get(a.id, "")) for a in attempts]


def _asked(
    reader: Judge, attempts: Sequence[Attempt], failures: dict[str, str]
) -> Sequence[object]:
    """What the judge says; where it raises, one attempt at a time, so that one costs only itself.

    A refused or timed-out connection is not asked again for every attempt: the judge has done its
    own retries, and a batch of them would wait for hours.
    """
    try:
        return _listed(reader.judge(attempts))
    except HoldfastError:
        raise
    except Exception as error:
        lone = len(attempts) == 1 or isinstance(error, OSError)  # TimeoutError is one
        if lone:
            told = " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST]
            failures.update((a.id, f"{FAILED}: {told}") for a in attempts)
            return []
    return [v for attempt in attempts for v in _asked(reader, [attempt], failures)]


def _listed(said: object) -> Sequence[object]:
    """A judge's answer as a list; anything that is none holds no verdicts."""
    return list(said) if isinstance(said, Iterable) and not isinstance(said, str) else []


def _settled(reader: Judge, attempt: Attempt, given: Sequence[Verdict], failure: str) -> Verdict:
    """The one verdict that counts, or why there is none."""
    if not given:
        return _unscored(reader, attempt, failure or "the judge gave no verdict")
    if any(verdict != given[0] for verdict in given):
        return _unscored(reader, attempt, f"the judge gave {len(given)} verdicts that differ")
    problem = problem_of(attempt.expects, given[0])
    if problem:
        return _unscored(reader, attempt, problem)
    return replace(given[0], judge=reader.name, version=reader.version)


def problem_of(expects: Expects, verdict: Verdict) -> str:
    """What is wrong with a verdict on an answer of that side; empty for nothing."""
    if not isinstance(verdict.label, str) or verdict.label not in LABELS_OF[expects]:
        return f"the judge said {str(verdict.label)[:LONGEST]!r}, which is no label of this side"
    score = verdict.score
    if score is not None and not (isinstance(score, (int, float)) and math.isfinite(score)):
        return f"the judge gave the score {str(score)[:LONGEST]}, which is no number"
    if verdict.label == "likelihood" and not (score is not None and 0 <= score <= 1):
        return f"the judge gave the likelihood {score}, which is no probability"
    return ""


def _unscored(reader: Judge, attempt: Attempt, reason: str) -> Verdict:
    return Verdict(attempt.id, reader.name, reader.version, "unscored", reason=reason)


def check_ids(attempts: Sequence[Attempt]) -> None:
    """Check that no attempt would be counted twice or hide another.

    Raises:
        DataError: two attempts of one id.
    """
    twice = [name for name, count in Counter(a.id for a in attempts).items() if count > 1]
    if twice:
        raise DataError(
            f"The attempt {twice[0]!r} occurs more than once ({len(twice)} ids do). Each answer "
            "needs an id of its own; answer them again with `holdfast evaluate`."
        )


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
