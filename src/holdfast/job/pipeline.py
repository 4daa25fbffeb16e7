"""The main job, as one story: audit → prepare → render → before → train → after → compare → report.

Every stage reads what stands in the run folder and writes the next numbered artefact there. A
finished stage whose inputs have not changed is not run again, and a killed run goes on.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

from holdfast.attacks import AttackContext
from holdfast.engines import Engine
from holdfast.engines._open import in_use
from holdfast.errors import RecipeError
from holdfast.exports import EXPORTS, export
from holdfast.files import digest, read_json, read_jsonl, write_json, write_text
from holdfast.job.cost import estimate, matrix_rate
from holdfast.job.elsewhere import ElsewhereJob, forget_pending
from holdfast.job.mixture import MAIN, PAIRS, PLAIN, Arm
from holdfast.job.rundir import RunFolder, StageStore
from holdfast.job.setup import set_up
from holdfast.measuring import preflight
from holdfast.measuring.asking import Asked, ask, comparable_settings
from holdfast.measuring.evaluation import Evaluation
from holdfast.measuring.noise import floors, measure_noise
from holdfast.models import ModelRef, load_model, quiet_libraries, resolve_model
from holdfast.processes.launch import current, part, together
from holdfast.progress import say, show
from holdfast.recipe import Recipe, dump_recipe
from holdfast.rendering.prompting import Prompting
from holdfast.rows.held_out import HELD_OUT, held_out_items, task_questions
from holdfast.stages.compare import compare
from holdfast.stages.parallel import check_asked, prepare_process, shards, to_start
from holdfast.stages.planning import ALL_SIDES, Served
from holdfast.stages.watch import Against
from holdfast.types import Conversation, Expects, Item

STAGES = ("audit", "prepare", "render", "before", "train", "after", "compare", "report")


def run(
    recipe: Recipe, *, until: str = "report", store: StageStore | None = None
) -> dict[str, Any]:
    """The whole story, or as far as the stage `until`; resumes what was begun.

    Args:
        recipe: what to do.
        until: last stage.
        store: finished stages of other runs, taken over where they are the same.

    Returns:
        The comparison (`7-comparison.json`), or the facts of the stage it stopped at. Where another
        has to train first, `state` is `waiting` and `instructions` say what to do; in a process
        that follows another one under a launcher, it is `followed`.

    Raises:
        HoldfastError: anything whose cure is the user's; nothing measured is lost.
    """
    quiet_libraries()
    setup = set_up(recipe)
    with RunFolder(Path(setup.recipe.run).expanduser(), store).opened() as folder:
        return Job(setup, folder).go(until)


class Job(ElsewhereJob):
    """One recipe at work in one run folder, from its rows to the report."""

    def go(self, until: str) -> dict[str, Any]:
        """Run the stages in order, up to and including `until`."""
        write_text(self.folder / "recipe.yaml", dump_recipe(self.recipe))
        self.check()
        facts: dict[str, Any] = {}
        for name in STAGES[: STAGES.index(until) + 1]:
            facts = getattr(self, name)()
            if facts.get("state") == "waiting":
                break
            if name == "after" and not current().leads:
                break  # what follows is one process's work
        return facts if current().leads else {"state": "followed"}

    # --- exports ------------------------------------------------------------------------------

    def check(self) -> None:
        """As the first half does; and the shared training, and formats to export to."""
        super().check()
        if self.recipe.train.with_ == "holdfast":
            check_asked(self.recipe.train, self.recipe.tuning)
        for kind in self.recipe.export:
            EXPORTS.get(kind)

    def render(self) -> dict[str, Any]:
        """The mixture as token ids and labels; and in the formats the recipe exports to."""
        facts = super().render()
        if facts.get("preference_pairs"):
            self._check_alone()
        for kind in self.recipe.export:
            self._export(kind)
        return facts

    def _check_alone(self) -> None:
        asked = max(current().world, to_start(self.recipe.train, self.recipe.tuning))
        if asked > 1:
            raise RecipeError(
                f"Preference pairs (`dpo`) are trained by one process on one GPU, and here {asked} "
                "would share the fine-tune. Start with `CUDA_VISIBLE_DEVICES=0` and "
                "`train.processes: 1`, or take `dpo` out of `mitigations`."
            )

    def _export(self, kind: str) -> None:
        recipe, output = self.recipe, f"exports/{kind}"
        trained = self.prompting_in_training(MAIN).fingerprint
        key = digest(
            kind, self.rows_key(MAIN), trained, recipe.tuning, recipe.seed, recipe.date,
            self.aim if self.renders else None, self.setup.fingerprint,
        )  # fmt: skip

        def work() -> dict[str, Any]:
            export(self.folder.path, kind, self.folder / output)
            return {}

        self.folder.stage(f"export-{kind}", key, work, outputs=[output], label=f"export {kind}")

    # --- evaluate and judge -------------------------------------------------------------------

    def before(self) -> dict[str, Any]:
        """The untouched model, ahead of training, so that a missing judge shows early."""
        show(preflight.table(self.reach))
        preflight.require_reachable(self.reach)
        self.prove_serving()
        self.say_cost()
        facts = self._evaluate(self.setup.model, "4-before", self.setup.fingerprint, MAIN)
        if self.recipe.evaluate.noise:
            self._noise()
        return facts

    def _noise(self) -> None:
        """The untouched model asked again, to see what moves when nothing is tuned."""
        repeats, asked = self.recipe.evaluate.noise, self.setup.asked
        key = digest(self._evaluation_key("4-before", self.setup.fingerprint, MAIN), repeats)

        def again(engine: Engine, asked: Asked, folder: Path, seed: int) -> None:
            self._ask(engine, asked, folder, self.setup.fingerprint, MAIN, seed)

        def work() -> dict[str, Any]:
            with in_use(self.engine(self.setup.model)) as engine:
                measure_noise(
                    again, engine, asked, self.folder / "4-noise",
                    repeats=repeats, plain=self.folder / "4-before",
                )  # fmt: skip
            return {}

        self.folder.stage("noise", key, work, outputs=["4-noise"], label="noise floor")

    def prove_serving(self) -> None:
        """Whether the tuned model's template can carry its prompting, before hours go into it."""
        from holdfast.contract.export import prove_template

        for arm in self.arms if self.renders else []:
            prove_template(self.renderer(self.served(arm)))

    def say_cost(self) -> None:
        """Memory, time and answers of what is to come, before it starts."""
        if self.recipe.train.with_ == "openai":
            return self.say_price()
        if self.recipe.train.with_ == "external":
            return None
        arms = self.arms
        epochs = self.recipe.tuning.epochs
        tokens = sum(self._render(arm)["tokens"] for arm in arms)
        context = self.attack_context
        asked = sum(
            item.expects in attack.sides and item.expects in served.sides
            for item in self.items
            for attack in self.setup.asked.attacks.values()
            for served in self.promptings(MAIN).values()
            if attack.unavailable(context) is None
        )
        cost = estimate(
            self.setup.model, self.recipe.tuning.method,
            train_tokens=round(epochs * tokens),
            answers=asked * (1 + len(arms)),
            max_new_tokens=self.setup.asked.max_new_tokens,
            flops=matrix_rate(),
        )  # fmt: skip
        if cost is not None:
            say(f"  {cost.line}")
        return None

    def after(self) -> dict[str, Any]:
        """The tuned model, as it was saved; and the control."""
        facts = self._evaluate_tuned(MAIN)
        if self.recipe.control == "plain":
            self._evaluate_tuned(PLAIN)
        return facts

    def _evaluate_tuned(self, arm: Arm) -> dict[str, Any]:
        if self.recipe.train.with_ != "holdfast":
            tuned, key = self.tuned(arm)
        else:
            tuned = resolve_model(self.folder / f"{arm.prefix}5-model")
            key = self.train_key(arm)
        return self._evaluate(tuned, f"{arm.prefix}6-after", key, arm)

    def _evaluate(self, model: ModelRef, name: str, model_key: str, arm: Arm) -> dict[str, Any]:
        def work() -> dict[str, Any]:
            processes = self._to_share(model)
            if processes > 1:
                return self._evaluate_together(processes, name)
            made = self.client(model, self.folder / name) if model.address else self.engine(model)
            against = self.against(arm) if self._stops_early(name) else None
            with in_use(made) as engine:
                facts = self._ask(
                    engine, self.setup.asked, self.folder / name, model_key, arm,
                    self.recipe.seed, against=against,
                )  # fmt: skip
            forget_pending(self.folder / name)
            return facts

        key = self._evaluation_key(name, model_key, arm)
        return self.folder.stage(
            name, key, work, outputs=[name], label=f"evaluate {name}", shared=self._shares(model)
        )

    def _shares(self, model: ModelRef) -> bool:
        """Whether several processes can answer; a server is asked by one, many prompts at once."""
        return model.address is None and self.recipe.evaluate.engine == "transformers"

    def _to_share(self, model: ModelRef) -> int:
        """Processes to start for an evaluation; 1 where this one is enough, or is one of them."""
        same = type(self) is Job  # a job that asks a part would not be what they repeat
        return to_start(self.recipe.train) if same and self._shares(model) else 1

    def _evaluate_together(self, processes: int, name: str) -> dict[str, Any]:
        """An evaluation by several processes, which do as `holdfast run` does; their facts."""
        say(f"  starting {processes} processes")
        until = "before" if name == "4-before" else "after"
        recipe = str(self.folder / "recipe.yaml")
        together(processes, ["run", recipe, "--until", until], os.getpid())
        return self.folder.facts(name)

    def _ask(
        self, engine: Engine, asked: Asked, folder: Path, model_key: str, arm: Arm, seed: int,
        against: Against | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        return ask(
            engine, self.items, asked, folder,
            promptings=self.promptings(arm),
            context=self.attack_context,
            fingerprint=model_key,
            date=self.recipe.date,
            seed=seed,
            judges=self.judges,
            against=against,
        )  # fmt: skip

    def _evaluation_key(self, name: str, model_key: str, arm: Arm) -> str:
        asked = self.setup.asked
        settings = comparable_settings(
            asked, self.judges, self.promptings(arm), model_key, self.recipe.date
        )
        engine = self.recipe.evaluate.engine
        key = digest(settings, asked.max_new_tokens, asked.batch, self.items_key, engine)
        if self._stops_early(name):  # where it stops depends on the gate and the untouched model
            key = digest(key, self.recipe.gate, self.setup.fingerprint)
        return key

    def _stops_early(self, name: str) -> bool:
        return self.recipe.evaluate.sequential and name != "4-before"

    def against(self, arm: Arm) -> Against:
        """What a sequential evaluation of an arm is held against."""
        before = Evaluation.read(self.folder / "4-before")
        return Against(before, self.recipe.gate, "serve" if arm is MAIN else self.plain_serving)

    def promptings(self, arm: Arm) -> dict[str, Served]:
        """What items are asked under: as served; without the safety prompt; as trained.

        A prompting that is the same as an earlier one is asked once, under the earlier name. The
        control is served, and so measured, without the safety prompt only.
        """
        harm: frozenset[Expects] = frozenset({"refuse"})
        named = {
            "serve": Served(self.plan.serve),
            "none": Served(self.plan.plain, ALL_SIDES if self.recipe.control else harm),
            "train": Served(self.plan.train, harm),
        }
        distinct: dict[str, Served] = {}
        for name, served in named.items():
            seen = {s.prompting.fingerprint for s in distinct.values()}
            if served.prompting.fingerprint not in seen:
                distinct[name] = served
        if arm is PLAIN:
            return {name: distinct[name] for name in [self.plain_serving]}
        return distinct

    @property
    def plain_serving(self) -> str:
        """Surface name under which the control is served."""
        same = self.plan.plain.fingerprint == self.plan.serve.fingerprint
        return "serve" if same else "none"

    @cached_property
    def items(self) -> list[Item]:
        """What is asked: all of it, unless a job is told to ask a part."""
        return self.all_items()

    def all_items(self) -> list[Item]:
        """Everything that is asked: the suite's items, and the user's held-out rows."""
        self.prepare()
        rows = map(Conversation.from_json, read_jsonl(self.folder / "2-held-out.jsonl"))
        return self.answerable([*self.benchmark_items, *held_out_items(rows)])

    @cached_property
    def attack_context(self) -> AttackContext:
        """What attacks may know of the user's rows."""
        questions = task_questions(self.items, self.formats)
        return preflight.attack_context(self.formats, self.recipe.seed, questions)

    @cached_property
    def items_key(self) -> str:
        """What identifies the items and what attacks know; a change of dose leaves it alone."""
        return digest(self.items, self.formats, self.recipe.seed)

    @cached_property
    def judges(self) -> dict[str, tuple[str, ...]]:
        """Task → judges."""
        return {**self.setup.asked.judges, HELD_OUT: ("match",)}

    @cached_property
    def reach(self) -> list[Any]:
        """What each gating cell can resolve."""
        return preflight.reaches(
            self.items, bool(self.formats), self.recipe.gate,
            sequential=self.recipe.evaluate.sequential,
        )  # fmt: skip

    # --- train --------------------------------------------------------------------------------

    def train(self) -> dict[str, Any]:
        """The fine-tune; and the control's. Somebody else's where the recipe says so."""
        if self.recipe.train.with_ != "holdfast":
            return self.train_elsewhere()
        facts = self._train(MAIN)
        if self.recipe.control == "plain":
            self._train(PLAIN)
        part()  # what follows is shared through files
        return facts

    def _train(self, arm: Arm) -> dict[str, Any]:
        output = f"{arm.prefix}5-model"

        def work() -> dict[str, Any]:
            from holdfast.contract.export import export_contract
            from holdfast.rendering.rendered import RenderedPairs, RenderedRows
            from holdfast.stages.preference import train_with_pairs

            recipe = self.recipe
            method = recipe.tuning.method
            processes = to_start(recipe.train, recipe.tuning)
            if processes > 1:
                return self._train_together(processes, arm)
            model = load_model(
                self.setup.model, quantise=method == "qlora", full_precision=method == "full",
                device=prepare_process(recipe.train), sharded=shards(recipe.train),
            )  # fmt: skip
            rendered, validated = self.folder / f"{arm.prefix}3-rendered", self.validates(arm)
            rows = RenderedRows.open(rendered)
            paired = (rendered / PAIRS).is_dir()
            train_with_pairs(
                model, self.tokenizer, rows, recipe.tuning, self.folder / output,
                pairs=RenderedPairs.open(rendered / PAIRS) if paired else None,
                seed=recipe.seed, base=self.setup.model.name, callbacks=self.callbacks(arm),
                validation=RenderedRows.open(rendered / "validation") if validated else None,
                parallel=recipe.train,
            )  # fmt: skip
            if current().leads:
                served = self.renderer(self.served(arm))
                export_contract(self.folder / output, served, base_model=self.setup.model.name)
            return {"rows": len(rows)}

        label = "train" if arm is MAIN else f"train ({arm.name})"
        return self.folder.stage(
            f"{arm.prefix}train", self.train_key(arm), work, outputs=[output], label=label,
            shared=True,
        )  # fmt: skip

    def _train_together(self, processes: int, arm: Arm) -> dict[str, Any]:
        """The fine-tune by several processes, which do as `holdfast train` does; their facts."""
        say(f"  starting {processes} processes")
        together(processes, ["train", str(self.folder / "recipe.yaml")], os.getpid())
        return self.folder.facts(f"{arm.prefix}train")

    def callbacks(self, arm: Arm) -> list[Any]:
        """What watches training: the refusal probe, and the level at which it ends.

        Raises:
            RecipeError: nothing to measure, or a level that is off its scale.
        """
        return [*self._probe(arm), *self._level(arm)]

    def _probe(self, arm: Arm) -> list[Any]:
        wanted = self.recipe.tuning.probe
        if wanted is None:
            return []
        from holdfast.callback import recipe_probe

        return [
            recipe_probe(
                wanted, self.items, self.attack_context, self.served(arm), self.tokenizer,
                self.recipe.date,
            )
        ]  # fmt: skip

    def _level(self, arm: Arm) -> list[Any]:
        wanted = self.recipe.tuning.stop_at
        if wanted is None:
            return []
        from holdfast.stopping import HeldOutHelpfulness, stop_callback

        items = [item for item in self.items if item.task == HELD_OUT][: wanted.items]
        if not items:
            raise RecipeError(
                "`tuning.stop_at` measures held-out rows, and none are held out. "
                "Raise `evaluate.hold_out`."
            )
        helpfulness = HeldOutHelpfulness(
            items, self.tokenizer, self.served(arm), self.setup.asked.decoding(self.recipe.seed),
            self.setup.asked.batch, self.recipe.date,
        )  # fmt: skip
        return [stop_callback(wanted, helpfulness)]

    def served(self, arm: Arm) -> Prompting:
        """What users of an arm will meet."""
        return self.plan.serve if arm is MAIN else self.plan.plain

    def train_key(self, arm: Arm) -> str:
        """What identifies a tuned model."""
        if self.recipe.train.with_ != "holdfast":
            return super().train_key(arm)
        rendered = self._render(arm)
        prompting = self.prompting_in_training(arm).fingerprint
        served = self.served(arm).fingerprint  # the contract beside the weights names it
        return digest(
            arm.name, rendered, prompting, self.rows_key(arm), self.recipe.tuning,
            self.recipe.seed, self.setup.fingerprint, served, self.recipe.date,
        )  # fmt: skip

    # --- compare and report -------------------------------------------------------------------

    def compare(self) -> dict[str, Any]:
        """The verdict."""
        before = Evaluation.read(self.folder / "4-before")
        small = preflight.cannot_hold(self.reach)
        gate = self.recipe.gate
        noise = floors(self.folder / "4-noise") if self.recipe.evaluate.noise else None
        after = Evaluation.read(self.folder / "6-after")
        if self.recipe.train.with_ != "holdfast":
            before = self.shared(before, after)
        result = compare(before, after, gate, cannot_hold=small, noise=noise)
        result["reach"] = self.reach
        if self.recipe.train.with_ != "holdfast":
            result["contract"] = self.contract()
        result["control"] = None
        if self.recipe.control == "plain":
            control = Evaluation.read(self.folder / "control/6-after")
            result["control"] = compare(
                before, control, gate, serving=self.plain_serving, cannot_hold=small, noise=noise
            )
        write_json(self.folder / "7-comparison.json", result)
        return dict(read_json(self.folder / "7-comparison.json"))

    def report(self) -> dict[str, Any]:
        """The report, in three forms."""
        from holdfast.stages.report import write_report

        write_report(self.folder.path)
        return dict(read_json(self.folder / "7-comparison.json"))
