"""Asking: what a recipe's `evaluate` block amounts to, and one model asked all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.attacks import Attack, AttackContext, attack
from holdfast.engines import Decoding, Engine
from holdfast.judges._choosing import announcement, choose
from holdfast.progress import say
from holdfast.recipe import EvaluateSettings
from holdfast.stages.evaluate import Served, evaluate, make_plan
from holdfast.stages.judge import judge_folder
from holdfast.stages.watch import LOOK, Against, GateWatch
from holdfast.suites import Suite, suite_of
from holdfast.tasks import TaskContext, task
from holdfast.types import Item

LAB_ANSWER_TOKENS = 64
ANSWER_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Asked:
    """Tasks, attacks and judges of an evaluation."""

    tasks: Mapping[str, int | None]
    """Name → most items, None for all."""
    attacks: Mapping[str, Attack]
    named: bool
    """Whether the attacks were named one by one: then one that can't run is an error."""
    judges: Mapping[str, tuple[str, ...]]
    """Task → judges, the one that gates first."""
    max_new_tokens: int
    batch: int
    temperature: float = 0.0
    """Above 0 for the noise floor only."""

    def decoding(self, seed: int) -> Decoding:
        """Greedy, the same for all arms."""
        return Decoding(self.max_new_tokens, self.temperature, seed=seed)


def what_to_ask(settings: EvaluateSettings, *, lab: bool) -> Asked:
    """Resolve an `evaluate` block; suites of the lab serve lab models only.

    Raises:
        RecipeError: an unknown task, attack or judge.
    """
    suite = suite_of(settings.suite, lab=lab)
    tasks = _tasks(settings, suite)
    judges = {name: _judges(settings, name) for name in tasks}
    harm = next((judges[n] for n in tasks if not lab and task(n).expects == "refuse"), None)
    if harm:
        say(announcement(harm))
    return Asked(
        tasks=tasks,
        attacks=_attacks(settings, suite),
        named=settings.attacks is not None,
        judges=judges,
        max_new_tokens=settings.max_new_tokens or (LAB_ANSWER_TOKENS if lab else ANSWER_TOKENS),
        batch=settings.batch,
    )


def ask(
    engine: Engine,
    items: Sequence[Item],
    asked: Asked,
    output: Path,
    *,
    promptings: Mapping[str, Served],
    context: AttackContext,
    fingerprint: str,
    date: str,
    seed: int,
    judges: Mapping[str, Sequence[str]] | None = None,
    against: Against | None = None,
) -> dict[str, Any]:
    """One model asked everything, its answers judged, into an evaluation folder.

    Args:
        engine: the model.
        items: of the tasks in `asked`, and any others that `judges` covers.
        asked: attacks, decoding, batch, judges.
        output: the evaluation folder; an interrupted one goes on.
        promptings: what is asked under which prompting.
        context: what attacks may know.
        fingerprint: of the model.
        date: that templates were given.
        seed: of sampled decoding.
        judges: task → judges where not those of `asked`.
        against: an earlier evaluation and the gate: a cell is asked no further than it takes to
            decide it. None: everything is asked.

    Returns:
        How many attempts and answers there are (were planned, where asking could stop early).
    """
    judges_of = judges or asked.judges
    decoding = asked.decoding(seed)
    plan = make_plan(
        engine,
        items,
        attacks=asked.attacks,
        promptings=promptings,
        context=context,
        decoding=decoding,
        batch=asked.batch,
        named=asked.named,
        look=LOOK if against else None,
    )
    settings = comparable_settings(asked, judges_of, promptings, fingerprint, date)
    if against:
        settings["sequential"] = against.settings(context.seed)
    watch = GateWatch(against, judges_of) if against else None
    label = f"evaluate {output.name}"
    evaluate(engine, plan, output, settings, decoding, label=label, watch=watch)
    judge_folder(output, judges_of)
    return {"attempts": plan.attempts, "answers": plan.answers}


def comparable_settings(
    asked: Asked,
    judges: Mapping[str, Sequence[str]],
    promptings: Mapping[str, Served],
    fingerprint: str,
    date: str,
) -> dict[str, Any]:
    """What makes two evaluations comparable, and which model answered."""
    return {
        "fingerprint": fingerprint,
        "attacks": {name: vars(a) for name, a in asked.attacks.items()},
        "judges": {task: list(names) for task, names in judges.items()},
        "promptings": {name: s.prompting.fingerprint for name, s in promptings.items()},
        "date": date,
    }


def _tasks(settings: EvaluateSettings, suite: Suite) -> dict[str, int | None]:
    if settings.tasks is None:
        return dict(suite.tasks)
    return {task(name).name: suite.tasks.get(name) for name in settings.tasks}


def _attacks(settings: EvaluateSettings, suite: Suite) -> dict[str, Attack]:
    names = settings.attacks if settings.attacks is not None else suite.attacks
    words = settings.prefill or list(suite.prefill)
    own = {"prefill": {"words": words}}
    return {name: attack(name, own.get(name)) for name in names}


def _judges(settings: EvaluateSettings, name: str) -> tuple[str, ...]:
    """The named judges that can read the task's answers; its own where none can."""
    found = task(name)
    return choose(settings.judges, found.judges, found.expects)


def context_of(data_dir: str | Path | None) -> TaskContext:
    """Where tasks may look for their material."""
    return TaskContext(Path(data_dir).expanduser() if data_dir else None)
