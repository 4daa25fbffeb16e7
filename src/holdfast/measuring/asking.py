"""Asking: what a recipe's `evaluate` block amounts to, and one model asked all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from holdfast.attacks import Attack, AttackContext, NeedsMaterial, attack, identity
from holdfast.engines import CAPABLE, Decoding, Engine
from holdfast.engines.openai import OpenAIEngine
from holdfast.errors import MaterialError, RecipeError, did_you_mean
from holdfast.judges._choosing import announcement, choose
from holdfast.lab.settings import PERSONAS
from holdfast.measuring.suites import Suite, suite_of
from holdfast.processes.launch import current
from holdfast.progress import say
from holdfast.recipe import EvaluateSettings, SpendingSettings
from holdfast.stages.evaluate import evaluate
from holdfast.stages.judge import judge_folder
from holdfast.stages.planning import Served, make_plan
from holdfast.stages.watch import LOOK, Against, GateWatch
from holdfast.tasks import TaskContext, task
from holdfast.types import Item
from holdfast.usage import Meter

LAB_ANSWER_TOKENS = 64
ANSWER_TOKENS = 512
LAB_ATTACKS: Mapping[str, Mapping[str, Any]] = {
    "code": {"carriers": ["string"]},
    "self_cipher": {"file": "lab:triples", "shots": 1, "role": PERSONAS[-1].system},
    "pair": {"attacker": "lab-mutator"},
    "autodan": {"seeds": "lab"},
}
"""What attacks on a lab model are given where the recipe says nothing: the lab's own material, and
carriers and roles that a model this small has met."""


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
    budget: SpendingSettings = field(default_factory=SpendingSettings)
    """What may be asked of a server."""

    def decoding(self, seed: int) -> Decoding:
        """Greedy, the same for all arms."""
        return Decoding(self.max_new_tokens, self.temperature, seed=seed)


def what_to_ask(
    settings: EvaluateSettings,
    *,
    lab: bool,
    served: bool = False,
    context: TaskContext | None = None,
) -> Asked:
    """Resolve an `evaluate` block; suites of the lab serve lab models only.

    Args:
        settings: the block.
        lab: whether a lab model is asked.
        served: whether a server is asked.
        context: where attacks may look for published prompts; None: nowhere.

    Raises:
        RecipeError: an unknown task, attack, setting or judge, or a named attack that needs more of
            the model than its engine gives.
        MaterialError: a named attack without the material it needs.
    """
    suite = suite_of(settings.suite, lab=lab)
    tasks = _tasks(settings, suite)
    judges = {name: _judges(settings, name) for name in tasks}
    harm = next((judges[n] for n in tasks if not lab and task(n).expects == "refuse"), None)
    if harm:
        say(announcement(harm))
    attacks = _attacks(settings, suite, lab=lab, context=context or TaskContext())
    if settings.attacks is not None:
        _require_access(attacks, "openai" if served else settings.engine)
        _require_attack_material(attacks)
    return Asked(
        tasks=tasks,
        attacks=attacks,
        named=settings.attacks is not None,
        judges=judges,
        max_new_tokens=settings.max_new_tokens or (LAB_ANSWER_TOKENS if lab else ANSWER_TOKENS),
        batch=settings.batch,
        budget=settings.budget,
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
    if isinstance(engine, OpenAIEngine):
        if not current().leads:
            return {}  # a server is asked by one process, many requests at once
        engine.meter = Meter(output, asked.budget, engine.endpoint.usage)
    plan = make_plan(
        engine,
        items,
        attacks=asked.attacks,
        promptings=promptings,
        context=replace(context, target=engine),
        decoding=decoding,
        batch=asked.batch,
        named=asked.named,
        look=LOOK if against else None,
    )
    for name, reason in plan.not_run.items():
        say(f"  attack not run: {name} ({reason})")
    settings = comparable_settings(asked, judges_of, promptings, fingerprint, date)
    if against:
        settings["sequential"] = against.settings(context.seed)
    watch = GateWatch(against, judges_of) if against else None
    label = f"evaluate {output.name}"
    evaluate(engine, plan, output, settings, decoding, label=label, watch=watch, judges=judges_of)
    if current().leads:
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
        "attacks": {name: identity(a) for name, a in asked.attacks.items()},
        "judges": {task: list(names) for task, names in judges.items()},
        "promptings": {name: s.prompting.fingerprint for name, s in promptings.items()},
        "date": date,
    }


def _tasks(settings: EvaluateSettings, suite: Suite) -> dict[str, int | None]:
    if settings.tasks is None:
        return dict(suite.tasks)
    return {task(name).name: suite.tasks.get(name) for name in settings.tasks}


def _attacks(
    settings: EvaluateSettings, suite: Suite, *, lab: bool, context: TaskContext
) -> dict[str, Attack]:
    names = settings.attacks if settings.attacks is not None else list(suite.attacks)
    given = _attack_settings(settings, suite, names, lab=lab)
    return {name: attack(name, given.get(name), data_dir=context.data_dir) for name in names}


def _attack_settings(
    settings: EvaluateSettings, suite: Suite, names: Sequence[str], *, lab: bool
) -> dict[str, Mapping[str, Any]]:
    """Attack → what its constructor is given: the recipe's own settings over the defaults."""
    own = settings.attack
    unasked = sorted(set(own) - set(names))
    if unasked:
        raise RecipeError(
            f"`evaluate.attack.{unasked[0]}` is set, but that attack is not asked. Add it to "
            f"`evaluate.attacks` or take its settings away. {did_you_mean(unasked[0], names)}"
        )
    if settings.prefill is not None and "words" in own.get("prefill", {}):
        raise RecipeError(
            "`evaluate.prefill` and `evaluate.attack.prefill.words` say the same thing: give one."
        )
    words = {"prefill": {"words": settings.prefill or list(suite.prefill)}}
    defaults = {**words, **(LAB_ATTACKS if lab else {})}
    return {name: {**defaults.get(name, {}), **own.get(name, {})} for name in names}


def _require_access(attacks: Mapping[str, Attack], engine: str) -> None:
    """Attacks that were named one by one must be possible before a model is loaded or asked."""
    can = CAPABLE[engine]
    lacking = {name: sorted(found.needs - can) for name, found in attacks.items()}
    lines = [
        f"The attack {name!r} cannot run: it needs {' and '.join(needs)}, which the engine "
        f"{engine} does not give. Take it off the list, or ask the model's weights."
        for name, needs in lacking.items()
        if needs
    ]
    if lines:
        raise RecipeError("\n  ".join(lines))


def _require_attack_material(attacks: Mapping[str, Attack]) -> None:
    """Attacks that were named one by one must have what they need before anything runs."""
    reasons = {n: a.missing() for n, a in attacks.items() if isinstance(a, NeedsMaterial)}
    lines = [f"The attack {name!r} cannot run: {why}." for name, why in reasons.items() if why]
    if lines:
        raise MaterialError("\n  ".join(lines))


def _judges(settings: EvaluateSettings, name: str) -> tuple[str, ...]:
    """The named judges that can read the task's answers; its own where none can."""
    found = task(name)
    return choose(settings.judges, found.judges, found.expects)


def context_of(data_dir: str | Path | None) -> TaskContext:
    """Where tasks may look for their material."""
    return TaskContext(Path(data_dir).expanduser() if data_dir else None)
