"""Evaluate: a plan's batches answered one after the other, resumable.

    plan → answer batch after batch → attempts.jsonl

The plan is stored; a killed evaluation goes on with the same batches and ends with the same bytes.
Asked sequentially, a watch looks at the answers between two rounds and closes the cells that are
decided; what belongs to closed cells only is left out of the rounds that follow.

Under a launcher the processes share the batches (`sharing`) and end with the same bytes; each of
them sees all answers, and so all watches close the same cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from holdfast.engines import Decoding, Engine
from holdfast.errors import RecipeError
from holdfast.files import (
    append_jsonl,
    drop_torn_line,
    make_folder,
    plain,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
)
from holdfast.measuring.evaluation import CellKey, read_attempts
from holdfast.measuring.searching import answered
from holdfast.processes.launch import Launch, current
from holdfast.progress import track
from holdfast.stages.planning import EvaluationPlan, Job
from holdfast.stages.search import Searcher
from holdfast.stages.sharing import Parts, PutTogether
from holdfast.types import Answer, Attempt


class Watch(Protocol):
    """Looks at the answers between two rounds, and closes what is decided."""

    @property
    def closed(self) -> frozenset[CellKey]:
        """Cells whose items are asked no more."""

    def see(self, attempts: Sequence[Attempt]) -> None:
        """Take in answers, in the order they were given."""

    def look(self) -> None:
        """Decide anew what is closed."""


def evaluate(
    engine: Engine,
    plan: EvaluationPlan,
    output: Path,
    settings: Mapping[str, Any],
    decoding: Decoding,
    *,
    label: str = "evaluate",
    watch: Watch | None = None,
    judges: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Answer a plan's batches into an evaluation folder; goes on where it stopped.

    Args:
        engine: answers.
        plan: from `make_plan`.
        output: the evaluation folder.
        settings: what makes this evaluation comparable with another; stored beside the answers.
        decoding: as planned.
        label: what the progress bar says.
        watch: closes cells that are decided; None: everything is asked.
        judges: task → judges, the first of which guides what searches.

    Returns:
        The path of `attempts.jsonl`.

    Raises:
        RecipeError: the folder holds an evaluation with other settings.
    """
    make_folder(output)
    recorded = {
        **settings,
        "engine": engine.name,
        "decoding": asdict(decoding),
        "not_run": plan.not_run,
        "plan": plan.fingerprint,
        **({"searching": plan.searching} if plan.searching else {}),
    }
    _check_folder(output, recorded)
    launch, parts = current(), Parts(output, current())
    batches = [[a.id for job in batch for a in job.attempts] for batch in plan.batches]
    if launch.leads:
        write_json(output / "settings.json", recorded)
        write_json(output / "plan.json", batches)
    path = output / "attempts.jsonl"
    if launch.world > 1 or parts.folder.is_dir():
        asking = _Asking(engine, decoding, Searcher(output, judges or {}, launch.rank))
        _ask_together(asking, plan, path, watch, parts, launch)
        return path
    asking = _Asking(engine, decoding, Searcher(output, judges or {}))
    if not plan.batches:
        write_jsonl(path, ())
    elif watch is None:
        _ask_all(asking, plan, path, label, _finished_batches(path, batches))
    else:
        _ask_until_closed(asking, plan, path, label, watch)
    if plan.searching:
        asking.searcher.settle([row["id"] for row in read_jsonl(path)])
    return path


@dataclass(frozen=True, slots=True)
class _Asking:
    """Who answers, how, and who carries out searches."""

    engine: Engine
    decoding: Decoding
    searcher: Searcher


def _ask_all(asking: _Asking, plan: EvaluationPlan, path: Path, label: str, done: int) -> None:
    for number in track(range(done, len(plan.batches)), label, total=len(plan.batches), done=done):
        append_jsonl(path, _answer(asking, plan.batches[number], number))


def _ask_until_closed(
    asking: _Asking, plan: EvaluationPlan, path: Path, label: str, watch: Watch
) -> None:
    """Batch by batch what is still open; batches on disk are replayed to the watch, not asked."""
    drop_torn_line(path)
    stored = read_attempts(path) if path.exists() else []
    at = 0
    for number in track(range(len(plan.batches)), label, total=len(plan.batches)):
        if number in plan.looks:
            watch.look()
        jobs = _still_open(plan.batches[number], watch.closed)
        if not jobs:
            continue
        ids = [attempt.id for job in jobs for attempt in job.attempts]
        given = stored[at : at + len(ids)]
        if [attempt.id for attempt in given] != ids:
            if at < len(stored):  # a batch that was not whole, or of other verdicts
                stored = stored[:at]
                write_jsonl(path, stored)
            given = _answer(asking, jobs, number)
            append_jsonl(path, given)
            stored += given
        at += len(ids)
        watch.see(given)
    if at < len(stored):
        write_jsonl(path, stored[:at])


def _ask_together(
    asking: _Asking,
    plan: EvaluationPlan,
    path: Path,
    watch: Watch | None,
    parts: Parts,
    launch: Launch,
) -> None:
    """Round by round what is still open, beside other processes; the leading one writes it all."""
    if launch.leads:
        drop_torn_line(path)
    begun = _stamp(path)
    stored = {attempt.id: attempt for attempt in (read_attempts(path) if begun else ())}
    given: list[Attempt] = []
    try:
        for round_ in plan.rounds:
            if watch is not None and round_.start:
                watch.look()
            closed = watch.closed if watch else frozenset()
            jobs = {n: _still_open(plan.batches[n], closed) for n in round_}
            ids = {n: [a.id for j in jobs[n] for a in j.attempts] for n in round_ if jobs[n]}
            todo = {n: wanted for n, wanted in ids.items() if not set(wanted) <= stored.keys()}
            if todo:
                parts.open(lambda: _stamp(path) != begun)
                parts.share(todo, partial(_answer_one_of, asking, jobs))
            for number, wanted in ids.items():
                found = parts.read(number) if number in todo else [stored[i] for i in wanted]
                given += found
                if watch is not None:
                    watch.see(found)
    except PutTogether:
        return
    if launch.leads:
        write_jsonl(path, given)
        if plan.searching:
            asking.searcher.settle([attempt.id for attempt in given])
        parts.remove()


def _answer_one_of(
    asking: _Asking, batches: Mapping[int, Sequence[Job]], number: int
) -> list[Attempt]:
    return _answer(asking, batches[number], number)


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file is written anew; None: there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _still_open(batch: Sequence[Job], closed: frozenset[CellKey]) -> list[Job]:
    """A batch without the attempts of closed cells, and without the jobs nobody waits for."""
    jobs = [
        replace(
            job,
            attempts=[a for a in job.attempts if (a.task, a.attack, a.surface) not in closed],
        )
        for job in batch
    ]
    return [job for job in jobs if job.attempts]


def _answer(asking: _Asking, batch: Sequence[Job], number: int) -> list[Attempt]:
    engine = asking.engine
    prompts = [job.prompt for job in batch]
    seeded = replace(asking.decoding, seed=asking.decoding.seed + number)
    if batch[0].search is not None:
        (attempt,) = batch[0].attempts
        return [asking.searcher.find(engine, batch[0].search, attempt, seeded)]
    if batch[0].reference is not None:
        scores = engine.loglikelihood(prompts, [job.reference or "" for job in batch])
        answers = [Answer("", logprob=score) for score in scores]
    else:
        answers = engine.generate(prompts, seeded)
    return [
        answered(attempt, answer)
        for job, answer in zip(batch, answers, strict=True)
        for attempt in job.attempts
    ]


def _check_folder(output: Path, settings: Mapping[str, Any]) -> None:
    path = output / "settings.json"
    if not path.exists():
        return
    before, now = read_json(path), plain(settings)
    other = [k for k in now if k != "judges" and before.get(k) != now[k]]  # judging comes later
    if other and any((output / name).exists() for name in ("attempts.jsonl", "parts")):
        raise RecipeError(
            f"{output} already holds an evaluation with another {', '.join(sorted(other))}. "
            "Choose another folder, or delete this one."
        )


def _finished_batches(path: Path, batches: Sequence[Sequence[str]]) -> int:
    """How many batches are whole on disk; what follows them is cut off."""
    if not path.exists():
        return 0
    drop_torn_line(path)
    kept = [row["id"] for row in read_jsonl(path)]
    done, at = 0, 0
    while done < len(batches) and kept[at : at + len(batches[done])] == list(batches[done]):
        at += len(batches[done])
        done += 1
    if at < len(kept):
        rows = [row for row, _ in zip(read_jsonl(path), range(at), strict=False)]
        write_jsonl(path, rows)
    return done
