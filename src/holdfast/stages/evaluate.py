"""Evaluate: tasks × attacks × promptings → attempts, batch by batch, resumable.

    plan (every attempt, its rendered text, its batch) → answer batch after batch → attempts.jsonl

The plan is made once and stored; a batch is the unit of resumption, so a killed evaluation goes on
with the same batches and ends with the same bytes. Equal texts are generated once. An item that an
attack searches a prompt for is a batch of its own, after all others.

Asked sequentially, the items of every task come in rounds of a seeded random order. Between two
rounds a watch looks at the answers and closes the cells that are decided; what belongs to closed
cells only is left out of the rounds that follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from holdfast.attacks import Attack, AttackContext, identity
from holdfast.engines import Decoding, Engine
from holdfast.errors import RecipeError
from holdfast.evaluation import CellKey, read_attempts
from holdfast.files import (
    append_jsonl,
    digest,
    drop_torn_line,
    make_folder,
    plain,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
)
from holdfast.progress import track
from holdfast.prompting import Prompting
from holdfast.searching import Search, answered, is_search
from holdfast.stages.search import Searcher
from holdfast.types import Answer, Attempt, Expects, Item, Message, Prompt, Surface

ALL_SIDES: frozenset[Expects] = frozenset({"refuse", "comply", "answer"})


@dataclass(frozen=True, slots=True)
class Served:
    """A prompting under its surface name, and which items are asked under it."""

    prompting: Prompting
    sides: frozenset[Expects] = ALL_SIDES


@dataclass(frozen=True, slots=True)
class Job:
    """One text to answer (or one reference reply to score), for one or more attempts."""

    key: str
    prompt: Prompt
    text: str
    reference: str | None
    """The reply whose likelihood is asked for; None: generate."""
    attempts: list[Attempt] = field(default_factory=list)
    """Attempts that wait for the answer, without it."""
    search: Search | None = None
    """What finds the text, where it is still to be found: `text` is where the search starts."""

    @property
    def kind(self) -> int:
        """Generation, likelihood or search, in the order they are asked."""
        return 2 if self.search else int(self.reference is not None)


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """Everything that will be asked, in batches."""

    batches: list[list[Job]]
    not_run: dict[str, str]
    """Attacks that do not apply here, with the reason."""
    looks: tuple[int, ...] = ()
    """Numbers of the batches before which a watch looks; none where everything is asked."""

    @property
    def attempts(self) -> int:
        """How many attempts there are."""
        return sum(len(job.attempts) for batch in self.batches for job in batch)

    @property
    def answers(self) -> int:
        """How many texts are to be answered, at most where attacks search."""
        jobs = [job for batch in self.batches for job in batch]
        return sum(job.search.attack.budget.queries if job.search else 1 for job in jobs)

    @property
    def searching(self) -> list[str]:
        """Names of the attacks that search, sorted."""
        jobs = [job for batch in self.batches for job in batch if job.search]
        return sorted({attempt.attack for job in jobs for attempt in job.attempts})

    @property
    def fingerprint(self) -> str:
        """Hash of all texts, batches and looks."""
        batches = [[job.key for job in batch] for batch in self.batches]
        return digest(batches, self.looks) if self.looks else digest(batches)


class Watch(Protocol):
    """Looks at the answers between two rounds, and closes what is decided."""

    @property
    def closed(self) -> frozenset[CellKey]:
        """Cells whose items are asked no more."""

    def see(self, attempts: Sequence[Attempt]) -> None:
        """Take in answers, in the order they were given."""

    def look(self) -> None:
        """Decide anew what is closed."""


def make_plan(
    engine: Engine,
    items: Sequence[Item],
    *,
    attacks: Mapping[str, Attack],
    promptings: Mapping[str, Served],
    context: AttackContext,
    decoding: Decoding,
    batch: int,
    named: bool = False,
    samples: int = 1,
    look: int | None = None,
) -> EvaluationPlan:
    """All attempts, grouped into batches of similar length.

    Args:
        engine: renders and measures prompts.
        items: what is asked.
        attacks: by name.
        promptings: by surface name; the first, `serve`, is what users will meet.
        context: wrapper, prefills and seed for the attacks.
        decoding: for all attempts alike.
        batch: texts per batch.
        named: whether the attacks were named one by one, so that one which can't run is an error.
        samples: answers per prompt, under sampled decoding.
        look: items of every task in a round, where a watch may stop early; None: all in one.

    Raises:
        RecipeError: a named attack that this engine or these rows do not allow.
    """
    runnable, not_run = _runnable(attacks, engine, context, named)
    batches: list[list[Job]] = []
    starts: list[int] = []
    for round_ in _rounds(items, look, context.seed):
        jobs: dict[str, Job] = {}
        for item, attack_name, surface, prompt in _asked(round_, runnable, promptings, context):
            for sample in range(samples):
                attempt = _waiting(engine, item, attack_name, surface, prompt, sample)
                search = _search(item, runnable[attack_name], surface, promptings, context)
                _add(jobs, attempt, prompt, search)
        starts.append(len(batches))
        batches += _batched(_by_length(jobs.values(), engine), batch)
    return EvaluationPlan(batches, not_run, tuple(starts[1:]))


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
    write_json(output / "settings.json", recorded)
    batches = [[a.id for job in batch for a in job.attempts] for batch in plan.batches]
    write_json(output / "plan.json", batches)
    path = output / "attempts.jsonl"
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


# --- planning -------------------------------------------------------------------------------------


def _rounds(items: Sequence[Item], look: int | None, seed: int) -> Iterator[list[Item]]:
    """The items, `look` of every task at a time in a seeded order; all at once without `look`."""
    if look is None:
        yield list(items)
        return
    tasks: dict[str, list[Item]] = {}
    for item in sorted(items, key=lambda i: asking_order(seed, i.task, i.id)):
        tasks.setdefault(item.task, []).append(item)
    longest = max((len(found) for found in tasks.values()), default=0)
    for start in range(0, longest, look):
        yield [item for found in tasks.values() for item in found[start : start + look]]


def asking_order(seed: int, task: str, item: str) -> str:
    """Where an item stands in the random order of its task: a key to sort by.

    The same order on every surface, and the same whichever other items there are.
    """
    return digest(seed, task, item)


def _by_length(jobs: Iterable[Job], engine: Engine) -> list[Job]:
    """Generation, likelihood, search; long prompts first."""
    return sorted(jobs, key=lambda j: (j.kind, -engine.length(j.prompt)))


def _runnable(
    attacks: Mapping[str, Attack], engine: Engine, context: AttackContext, named: bool
) -> tuple[dict[str, Attack], dict[str, str]]:
    runnable: dict[str, Attack] = {}
    not_run: dict[str, str] = {}
    for name, attack in attacks.items():
        lacking = sorted(attack.needs - engine.can)
        reason = attack.unavailable(context)
        if lacking:
            reason = f"the engine {engine.name} cannot do {', '.join(lacking)}"
        if reason is None:
            runnable[name] = attack
        elif named:
            raise RecipeError(f"The attack {name!r} cannot run: {reason}. Take it off the list.")
        else:
            not_run[name] = reason
    return runnable, not_run


def _asked(
    items: Iterable[Item],
    attacks: Mapping[str, Attack],
    promptings: Mapping[str, Served],
    context: AttackContext,
) -> Iterator[tuple[Item, str, Surface, Prompt]]:
    for item in items:
        for name, attack in attacks.items():
            if item.expects not in attack.sides:
                continue
            for surface, prompt in attack.prompts(item, context):
                for serving, served in promptings.items():
                    once = bool(surface.prefill) or surface.form == "raw" or is_search(attack)
                    if item.expects not in served.sides or (once and serving != "serve"):
                        continue
                    where = Surface(surface.wrapper, serving, surface.form, surface.prefill)
                    yield item, name, where, _prompted(prompt, served.prompting)


def _prompted(prompt: Prompt, prompting: Prompting) -> Prompt:
    messages: tuple[Message, ...] = prompt.messages
    if not prompt.raw:
        messages = prompting.apply(messages)
    return Prompt(messages, prompt.prefill, prompt.raw, prompting.template, prompting.template_args)


def _search(
    item: Item,
    attack: Attack,
    surface: Surface,
    promptings: Mapping[str, Served],
    context: AttackContext,
) -> Search | None:
    """The search for an item's prompt; None where the attack makes its prompts at once."""
    if not is_search(attack):
        return None
    prompting = promptings[surface.prompting].prompting
    return Search(attack, item, lambda prompt: _prompted(prompt, prompting), context.seed)


def _waiting(
    engine: Engine, item: Item, attack: str, surface: Surface, prompt: Prompt, sample: int
) -> Attempt:
    """An attempt without its answer."""
    return Attempt(
        id=f"{item.task}/{item.id}|{attack}|{surface.name}|{sample}",
        item=item.id,
        task=item.task,
        expects=item.expects,
        attack=attack,
        surface=surface.name,
        sample=sample,
        request=item.request,
        prompt=engine.render(prompt),
        prefill=prompt.prefill,
        response="",
        truncated=False,
        tokens=0,
        reference=item.reference,
        answer=item.answer,
        category=item.category,
    )


def _add(jobs: dict[str, Job], attempt: Attempt, prompt: Prompt, search: Search | None) -> None:
    """Let an attempt wait for a job that asks the same; a search shares its answer with nobody."""
    reference = attempt.reference if attempt.answer == "likelihood" else None
    asked = (attempt.prompt, prompt.raw, reference, attempt.sample)
    key = digest(*asked, attempt.id, identity(search.attack)) if search else digest(*asked)
    job = jobs.setdefault(key, Job(key, prompt, attempt.prompt, reference, search=search))
    job.attempts.append(attempt)


def _batched(jobs: Sequence[Job], size: int) -> Iterator[list[Job]]:
    """Batches of one kind each; a search is alone in its batch."""
    current: list[Job] = []
    for job in jobs:
        full = len(current) == (1 if job.search else size)
        other = bool(current) and current[0].kind != job.kind
        if full or other:
            yield current
            current = []
        current.append(job)
    if current:
        yield current


# --- answering ------------------------------------------------------------------------------------


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
    if other and (output / "attempts.jsonl").exists():
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
