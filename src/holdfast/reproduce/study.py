"""The study: gate, cost, then looks of more and more seeds, until every claim is decided.

    gate    the untouched models are asked first: what does not refuse has no refusals to lose
    cost    one arm of every base recipe is rendered; arms, answers and time are printed
    looks   3 seeds, then 5, then 8, for the claims that the looks before could not decide

Everything is kept in files, so the same command goes on after a kill, and says the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.claims import Claim, Reading
from holdfast.errors import RecipeError
from holdfast.job.cost import Cost
from holdfast.job.rundir import RunFolder
from holdfast.progress import say
from holdfast.report.words import plural
from holdfast.reproduce.orders import Answers, Order, orders, readings_of
from holdfast.reproduce.recipes import Recipes
from holdfast.reproduce.verdicts import Judged, Table, finding, judge_all, untestable
from holdfast.reproduce.workers import Workers, workers
from holdfast.sweep.store import SharedStages

LOOKS = (3, 5, 8)
"""Numbers of seeds at which a claim is looked at; the same for all claims."""


@dataclass(frozen=True)
class Study:
    """What is to be re-measured, and how."""

    claims: dict[str, Claim]
    recipes: Recipes
    output: Path
    seeds: tuple[int, ...] = tuple(range(LOOKS[-1]))
    looks: tuple[int, ...] = LOOKS
    """Numbers of seeds, rising; the last is at most the number of `seeds`."""
    jobs: int = 1
    threads: int = 1
    """Of each worker."""


@dataclass
class _Progress:
    """Orders done and to be done, and the time that is left."""

    total: int
    jobs: int
    done: int = 0
    took: list[float] = field(default_factory=list)

    def step(self, order: Order, seconds: float, error: str) -> None:
        """One more is done."""
        self.done += 1
        if seconds >= 1:  # less: it was done before
            self.took.append(seconds)
        told = f"  this arm stops: {error}" if error else f"{seconds:.0f} s"
        say(f"[{self.done}/{self.total}] {order.name} · {told}{self._left()}")

    def _left(self) -> str:
        left = self.total - self.done
        if not left or not self.took:
            return ""
        seconds = left * sum(self.took) / len(self.took) / self.jobs
        return (
            f" · about {seconds / 60:.0f} min left" if seconds >= 90 else " · about a minute left"
        )


def run(study: Study) -> list[Judged]:
    """Re-measure the claims; goes on where an earlier run of the same folder stopped.

    Raises:
        HoldfastError: a folder, recipe or model that stops every arm.
    """
    with RunFolder(study.output).opened():
        SharedStages(study.output / "store")  # alone here: removes what a kill left half done
        with workers(study.output, study.jobs, study.threads) as pool:
            return _Run(study, pool).go()


class _Run:
    """A study at work."""

    def __init__(self, study: Study, pool: Workers) -> None:
        self._study, self._pool = study, pool
        self._answers = Answers()
        self._table = Table(self._answers, study.recipes)
        self._asked: dict[str, set[object]] = {}

    def go(self) -> list[Judged]:
        """Gate, cost, looks."""
        study = self._study
        first = study.seeds[: study.looks[0]]
        self._gate(first)
        told = [name for name in study.claims if not self._stopped(name, first)]
        self._say_cost(told, first)
        seeds = {name: first for name in study.claims}
        open_ = told
        judged: list[Judged] = []
        for look in study.looks:
            seen = study.seeds[:look]
            seeds |= dict.fromkeys(open_, seen)
            if open_:
                say(f"Look at {plural(len(seen), 'seed')}: {', '.join(open_)}")
            self._work([r for name in open_ for r in readings_of(study.claims[name])], seen)
            judged = judge_all(
                [
                    finding(name, claim, self._table, seeds[name], study.looks, len(first))
                    for name, claim in study.claims.items()
                ]
            )
            open_ = [one.finding.name for one in judged if _undecided(one)]
        return judged

    def _gate(self, seeds: Sequence[int]) -> None:
        """Ask the untouched models what the claims need of them."""
        needs = [need for claim in self._study.claims.values() for need in claim.needs]
        self._work([need.reading for need in needs if not need.reading.arm.tuned], seeds)

    def _stopped(self, name: str, seeds: Sequence[int]) -> bool:
        reason = untestable(self._study.claims[name], self._table, seeds, untuned=True)
        if reason:
            say(f"{name} is not testable: {reason}")
        return bool(reason)

    def _orders(self, wanted: Sequence[Reading], seeds: Sequence[int]) -> list[Order]:
        """What is not done yet."""
        study = self._study
        return [
            order
            for order in orders(wanted, seeds, study.recipes, study.output)
            if not set(order.questions) <= self._asked.get(order.name, set())
        ]

    def _work(self, wanted: Sequence[Reading], seeds: Sequence[int]) -> None:
        todo = self._orders(wanted, seeds)
        progress = _Progress(len(todo), self._study.jobs)
        for order, brought, seconds in self._pool.work(todo):
            self._answers.take(order, brought)
            self._asked.setdefault(order.name, set()).update(order.questions)
            progress.step(order, seconds, brought.get("error", ""))

    # --- cost ---------------------------------------------------------------------------------

    def _say_cost(self, names: Sequence[str], seeds: Sequence[int]) -> None:
        wanted = [r for name in names for r in readings_of(self._study.claims[name])]
        todo = self._orders(wanted, seeds)
        if not todo:
            return
        kinds: dict[tuple[str, bool], list[Order]] = {}
        for order in todo:
            kinds.setdefault((order.kind, order.tuned), []).append(order)
        firsts = [found[0] for found in kinds.values()]
        told = [
            (cost, len(found))
            for cost, found in zip(self._pool.costs(firsts), kinds.values(), strict=True)
            if cost is not None
        ]
        trained = sum(order.tuned for order in todo)
        questions = sum(len(order.questions) for order in todo)
        say(
            f"{plural(len(names), 'claim')} at {plural(len(seeds), 'seed')}: "
            f"{plural(trained, 'arm')} to train, {plural(questions, 'question')} to ask, "
            f"{self._study.jobs} at a time"
        )
        if told:
            say(f"  {_total(told, self._study.jobs)}; more seeds where these cannot decide")


def _undecided(one: Judged) -> bool:
    """A claim without a verdict, or a control, which takes all seeds whatever it looks like."""
    return one.verdict == "inconclusive" or bool(one.finding.claim.passes)


def _total(told: Sequence[tuple[Cost, int]], jobs: int) -> str:
    tokens = sum(cost.train_tokens * n for cost, n in told)
    answers = sum(cost.answers * n for cost, n in told)
    hours = sum(cost.hours * n for cost, n in told) / jobs
    took = f"{hours:.1f} h" if hours >= 1 else f"{max(1, 60 * hours):.0f} min"
    return (
        f"about {tokens:,} tokens to train on and {answers:,} answers, at most {took} of computing"
    )


def check_looks(seeds: Sequence[int] | None, most: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Seeds and looks of a study.

    Args:
        seeds: exactly these, looked at once; None: 0, 1, 2 and more where they cannot decide.
        most: seeds at most.

    Raises:
        RecipeError: fewer than three at most.
    """
    if seeds is not None:
        return tuple(seeds), (len(seeds),)
    looks = tuple(look for look in LOOKS if look <= most)
    if not looks:
        raise RecipeError(
            f"--most {most}: a claim needs at least {LOOKS[0]} seeds. Give {LOOKS[0]} or more, or "
            "name them with --seeds."
        )
    return tuple(range(looks[-1])), looks
