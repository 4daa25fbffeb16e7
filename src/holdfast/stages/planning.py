"""Planning: tasks × attacks × promptings → jobs in batches, before anything is asked.

    items → prompts, as attacks and promptings have them → equal texts once → batches of a kind

A plan is the same wherever it is made: a batch is the unit of resumption, and what a machine can
compute at once is the engine's affair. Prompts with the same opening stand together, so that it is
computed once for all of them. An item that an attack searches a prompt for is a batch of its own,
after all others.

Asked sequentially, the items of every task come in rounds of a seeded random order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise

from holdfast.attacks import Attack, AttackContext, identity
from holdfast.engines import Decoding, Engine
from holdfast.errors import RecipeError
from holdfast.files import digest
from holdfast.measuring.searching import Search, is_search
from holdfast.rendering.prompting import Prompting
from holdfast.types import Attempt, Expects, Item, Message, Prompt, Surface

ALL_SIDES: frozenset[Expects] = frozenset({"refuse", "comply", "answer"})

FEW = 8
"""Jobs that have to share an opening for a batch of their own."""


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

    @property
    def opening(self) -> str:
        """What stands before the request itself, as prompts of one prompting share it."""
        first = self.prompt.messages[0]
        system = "" if self.prompt.raw or first.role != "system" else first.content
        return digest(system, self.prompt.template, self.prompt.template_args)


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """Everything that will be asked, in batches."""

    batches: list[list[Job]]
    not_run: dict[str, str]
    """Attacks that do not apply here, with the reason."""
    looks: tuple[int, ...] = ()
    """Numbers of the batches before which a watch looks; none where everything is asked."""

    @property
    def rounds(self) -> list[range]:
        """Numbers of the batches between two looks."""
        bounds = [0, *self.looks, len(self.batches)]
        return [range(*pair) for pair in pairwise(bounds)]

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
        context: wrapper, questions and seed for the attacks.
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
        batches += _batched(jobs.values(), engine, batch)
    return EvaluationPlan(batches, not_run, tuple(starts[1:]))


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


def _batched(jobs: Collection[Job], engine: Engine, size: int) -> Iterator[list[Job]]:
    """Generation, likelihood, search; one opening after the other; long prompts first.

    A batch is of one kind and one opening; openings of few jobs share theirs. A search is alone in
    its batch.
    """
    sharing = Counter(job.opening for job in jobs)

    def group(job: Job) -> tuple[int, str]:
        return job.kind, job.opening if sharing[job.opening] >= FEW else ""

    ordered = sorted(jobs, key=lambda job: (*group(job), -engine.length(job.prompt)))
    for _, alike in groupby(ordered, group):
        left = list(alike)
        step = 1 if left[0].search else size
        yield from (left[at : at + step] for at in range(0, len(left), step))
