"""Evaluate: tasks × attacks × promptings → attempts, batch by batch, resumable.

    plan (every attempt, its rendered text, its batch) → answer batch after batch → attempts.jsonl

The plan is made once and stored; a batch is the unit of resumption, so a killed evaluation goes on
with the same batches and ends with the same bytes. Equal texts are generated once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from holdfast.attacks import Attack, AttackContext
from holdfast.engines import Decoding, Engine
from holdfast.errors import RecipeError
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


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """Everything that will be asked, in batches."""

    batches: list[list[Job]]
    not_run: dict[str, str]
    """Attacks that do not apply here, with the reason."""

    @property
    def attempts(self) -> int:
        """How many attempts there are."""
        return sum(len(job.attempts) for batch in self.batches for job in batch)

    @property
    def answers(self) -> int:
        """How many texts are to be answered."""
        return sum(len(batch) for batch in self.batches)

    @property
    def fingerprint(self) -> str:
        """Hash of all texts and batches."""
        return digest([[job.key for job in batch] for batch in self.batches])


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

    Raises:
        RecipeError: a named attack that this engine or these rows do not allow.
    """
    runnable, not_run = _runnable(attacks, engine, context, named)
    jobs: dict[str, Job] = {}
    for item, attack_name, surface, prompt in _asked(items, runnable, promptings, context):
        for sample in range(samples):
            _add(jobs, engine, item, attack_name, surface, prompt, sample)
    order = sorted(jobs.values(), key=lambda j: (j.reference is not None, -engine.length(j.prompt)))
    return EvaluationPlan(list(_batched(order, batch)), not_run)


def evaluate(
    engine: Engine,
    plan: EvaluationPlan,
    output: Path,
    settings: Mapping[str, Any],
    decoding: Decoding,
    *,
    label: str = "evaluate",
) -> Path:
    """Answer a plan's batches into an evaluation folder; goes on where it stopped.

    Args:
        engine: answers.
        plan: from `make_plan`.
        output: the evaluation folder.
        settings: what makes this evaluation comparable with another; stored beside the answers.
        decoding: as planned.
        label: what the progress bar says.

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
    }
    _check_folder(output, recorded)
    write_json(output / "settings.json", recorded)
    batches = [[a.id for job in batch for a in job.attempts] for batch in plan.batches]
    write_json(output / "plan.json", batches)
    path = output / "attempts.jsonl"
    done = _finished_batches(path, batches)
    for number in track(range(done, len(plan.batches)), label, total=len(plan.batches), done=done):
        append_jsonl(path, _answer(engine, plan.batches[number], decoding, number))
    if not plan.batches:
        write_jsonl(path, ())
    return path


# --- planning -------------------------------------------------------------------------------------


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
                    if item.expects not in served.sides or (surface.prefill and serving != "serve"):
                        continue
                    where = Surface(surface.wrapper, serving, surface.form, surface.prefill)
                    yield item, name, where, _prompted(prompt, served.prompting)


def _prompted(prompt: Prompt, prompting: Prompting) -> Prompt:
    messages: tuple[Message, ...] = prompt.messages
    if not prompt.raw:
        messages = prompting.apply(messages)
    return Prompt(messages, prompt.prefill, prompt.raw, prompting.template, prompting.template_args)


def _add(
    jobs: dict[str, Job],
    engine: Engine,
    item: Item,
    attack: str,
    surface: Surface,
    prompt: Prompt,
    sample: int,
) -> None:
    text = engine.render(prompt)
    scored = item.answer == "likelihood"
    reference = item.reference if scored else None
    key = digest(text, prompt.raw, reference, sample)
    job = jobs.setdefault(key, Job(key, prompt, text, reference))
    job.attempts.append(
        Attempt(
            id=f"{item.task}/{item.id}|{attack}|{surface.name}|{sample}",
            item=item.id,
            task=item.task,
            expects=item.expects,
            attack=attack,
            surface=surface.name,
            sample=sample,
            request=item.request,
            prompt=text,
            prefill=prompt.prefill,
            response="",
            truncated=False,
            tokens=0,
            reference=item.reference,
            answer=item.answer,
            category=item.category,
        )
    )


def _batched(jobs: Sequence[Job], size: int) -> Iterator[list[Job]]:
    """Batches of one kind each: generation and likelihood do not mix."""
    current: list[Job] = []
    for job in jobs:
        full = len(current) == size
        other = bool(current) and (current[0].reference is None) != (job.reference is None)
        if full or other:
            yield current
            current = []
        current.append(job)
    if current:
        yield current


# --- answering ------------------------------------------------------------------------------------


def _answer(engine: Engine, batch: Sequence[Job], decoding: Decoding, number: int) -> list[Attempt]:
    prompts = [job.prompt for job in batch]
    if batch[0].reference is not None:
        scores = engine.loglikelihood(prompts, [job.reference or "" for job in batch])
        answers = [Answer("", logprob=score) for score in scores]
    else:
        seeded = Decoding(
            decoding.max_new_tokens, decoding.temperature, decoding.top_p, decoding.seed + number
        )
        answers = engine.generate(prompts, seeded)
    return [
        _answered(attempt, answer)
        for job, answer in zip(batch, answers, strict=True)
        for attempt in job.attempts
    ]


def _answered(attempt: Attempt, answer: Answer) -> Attempt:
    return replace(
        attempt,
        response=answer.text,
        truncated=answer.truncated,
        tokens=answer.tokens,
        logprob=answer.logprob,
    )


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
