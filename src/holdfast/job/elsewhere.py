"""Elsewhere: a run whose model, or whose training, is not on this machine.

    external   export the rows → wait → `after` names the tuned model
    openai     export the rows → a server's fine-tuning job → the model it names

What is different for such a run stands here; the story is the pipeline's.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from holdfast.contract.check import Check, overall
from holdfast.contract.terms import CASES
from holdfast.endpoint import Address, Endpoint
from holdfast.engines import Engine
from holdfast.engines._open import served as client_of
from holdfast.engines.openai import OpenAIEngine
from holdfast.errors import RecipeError
from holdfast.files import digest, read_json, write_json
from holdfast.job.mixture import MAIN, PLAIN, Arm, MixtureJob
from holdfast.measuring.evaluation import Evaluation
from holdfast.models import ModelRef, resolve_model
from holdfast.models import fingerprint as model_fingerprint
from holdfast.progress import say
from holdfast.rendering.prompting import Prompting
from holdfast.stages.compare import gates
from holdfast.stages.hand_over import hand_over, instructions, stop_waiting, wait
from holdfast.stages.remote_train import RemoteJob, estimate
from holdfast.types import Item, Prompt, Surface

CONTRACT = "6-contract.json"
PENDING = "pending"
"""Answers of a server on their way into an evaluation, so that none is paid for twice."""


class ElsewhereJob(MixtureJob):
    """One recipe at work, as far as something of it happens on another machine."""

    # --- what can be known beforehand -------------------------------------------------------------

    def check(self) -> None:
        """As for every run; and that the settings go together.

        Raises:
            RecipeError: they do not.
        """
        for problem in self._problems():
            raise RecipeError(problem)
        super().check()

    def _problems(self) -> Sequence[str]:
        recipe, way = self.recipe, self.recipe.train.with_
        address = self.setup.model.address
        found = []
        if way == "holdfast" and address is not None:
            found.append(
                f"{recipe.model} is served elsewhere and cannot be tuned here. Set `train.with: "
                "openai` for the server's own fine-tuning, or `train.with: external`."
            )
        if way == "openai" and address is None:
            found.append(
                f"`train.with: openai` tunes a model of a server, and {recipe.model!r} is none: "
                "write openai:MODEL or http://HOST/v1#MODEL, or set `train.with: external`."
            )
        if recipe.after is not None and way != "external":
            found.append(
                f"`after` names a model that somebody else tuned, and `train.with` is {way!r}. "
                "Set `train.with: external`, or take `after` away."
            )
        if recipe.control and way == "external":
            found.append(
                "`control: plain` tunes a second model, which `train.with: external` has no name "
                "for. Run the control as a recipe of its own with `mitigations: []`."
            )
        if way == "external":
            self.format  # noqa: B018  (an unknown name shows now)
        if recipe.tuning.stop_at and way != "holdfast":
            found.append("`tuning.stop_at` watches training, which does not happen here.")
        if recipe.evaluate.noise and self.asks_server:
            found.append(
                "`evaluate.noise` asks with other batch sizes and precisions, which a server "
                "decides for itself. Set it to 0."
            )
        templates = (recipe.prompting.train.template, recipe.prompting.serve.template)
        if self.asks_server and any(templates):
            found.append(
                "A served model is rendered by its server: `prompting.*.template` cannot be set. "
                "Start the server with that template and leave the setting out."
            )
        if address is not None and self.named_after is not None and not self.named_after.address:
            found.append(
                f"{recipe.model} is served and {recipe.after} is not: their prompts could not be "
                "compared. Serve the tuned model too, or give the untouched one's folder."
            )
        return found

    @cached_property
    def named_after(self) -> ModelRef | None:
        """The tuned model that the recipe names."""
        return None if self.recipe.after is None else resolve_model(self.recipe.after)

    @property
    def asks_server(self) -> bool:
        """Whether either model is behind a server, and so has no log-probabilities to give."""
        return any(ref and ref.address for ref in (self.setup.model, self.named_after))

    def answerable(self, items: Sequence[Item]) -> list[Item]:
        """Items that both models can be asked; a server scores no given reply."""
        kept = [i for i in items if not (self.asks_server and i.answer == "likelihood")]
        if len(kept) < len(items):
            say(
                f"  note: {len(items) - len(kept):,} items are compared by likelihood, which a "
                "server does not give: not asked"
            )
        return kept

    # --- training ---------------------------------------------------------------------------------

    def render(self) -> dict[str, Any]:
        """As for every run, and the rows as the other trainer reads them.

        Here, so that rows it cannot be given show before anything is asked or sent.
        """
        facts = super().render()
        if self.recipe.train.with_ == "external":
            self.export()
        elif self.recipe.train.with_ == "openai":
            for arm in self.arms:
                self.messages(arm)
        return facts

    @cached_property
    def format(self) -> str:
        """The training format that an external trainer reads.

        Raises:
            RecipeError: no such format.
        """
        from holdfast.exports import EXPORTS

        name = self.recipe.train.trainer or ("trl" if self.renders else "openai")
        EXPORTS.get(name)
        return name

    def export(self) -> dict[str, Any]:
        """The rows for an external trainer, with its configuration, in `3-export/`."""
        from holdfast.exports import EXPORTS, export

        key = digest(
            self.rows_key(MAIN), self.prompting_in_training(MAIN).fingerprint, self.format,
            self.recipe.tuning, self.setup.fingerprint,
        )  # fmt: skip

        def work() -> dict[str, Any]:
            folder, made = self.folder / "3-export", EXPORTS.get(self.format)()
            export(self.folder.path, self.format, folder)
            rows = read_json(folder / "manifest.json")["export"]["rows"]
            return {"format": self.format, "trainer": made.version, "start": made.start, **rows}

        return self.folder.stage("export", key, work, outputs=["3-export"], label="export")

    def messages(self, arm: Arm) -> dict[str, Any]:
        """The rows of an arm as chat messages for a server's job, in `3-export/`."""
        prompting, folder = self.prompting_in_training(arm), f"{arm.prefix}3-export"

        def work() -> dict[str, Any]:
            validation = self.validation(arm) if self.validates(arm) else ()
            return hand_over(self.folder / folder, self.mixture(arm), prompting, validation)

        key = digest(self.rows_key(arm), prompting.fingerprint)
        label = "export" if arm is MAIN else f"export ({arm.name})"
        return self.folder.stage(f"{arm.prefix}export", key, work, outputs=[folder], label=label)

    def train_elsewhere(self) -> dict[str, Any]:
        """The fine-tune by somebody else: a state to wait in, or the tuned model's facts."""
        if self.recipe.train.with_ == "external":
            return self._await_model()
        facts = [self._remote(arm) for arm in self.arms]
        return facts[0]

    @property
    def arms(self) -> list[Arm]:
        """The recipe's arm, and the control where there is one."""
        return [MAIN, PLAIN] if self.recipe.control == "plain" else [MAIN]

    def _await_model(self) -> dict[str, Any]:
        made, run = self.export(), self.folder.path
        if self.named_after is not None:
            stop_waiting(run)
            return {"model": self.named_after.name}
        lines = instructions(run, self.folder / "3-export", self.recipe, made, self.plan.serve)
        return wait(run, {"for": "after", **made}, lines)

    def say_price(self) -> None:
        """What a server's jobs will cost, before anything is sent.

        Raises:
            RecipeError: more than the recipe allows.
        """
        asked = self.recipe.train
        tokens = sum(self.messages(arm)["tokens"] for arm in self.arms)
        line, cost = estimate(tokens, self.recipe.tuning.epochs, asked.price)
        say(f"  {line}")
        if asked.max_cost is not None and cost is not None and cost > asked.max_cost:
            raise RecipeError(
                f"The job would cost about {cost:,.2f}, and `train.max_cost` is "
                f"{asked.max_cost:g}. Nothing was sent. Raise it, or train on less."
            )

    def _remote(self, arm: Arm) -> dict[str, Any]:
        address = self.setup.model.address
        assert address is not None
        asked, key = self.recipe.train, self.train_key(arm)

        def work() -> dict[str, Any]:
            epochs = self.recipe.tuning.epochs
            return RemoteJob(
                Endpoint(address.url, address.key_variable), address.model, key,
                self.folder / f"{arm.prefix}5-job", self.folder / f"{arm.prefix}3-export",
                {"n_epochs": round(epochs), **asked.hyperparameters}, self.recipe.seed, asked.poll,
            ).run()  # fmt: skip

        label = "train on the server" + ("" if arm is MAIN else f" ({arm.name})")
        return self.folder.stage(
            f"{arm.prefix}train", key, work, outputs=[f"{arm.prefix}5-job"], label=label
        )

    def train_key(self, arm: Arm) -> str:
        """What identifies a server's job: everything that is sent."""
        recipe, prompting = self.recipe, self.prompting_in_training(arm).fingerprint
        asked = recipe.train.hyperparameters
        return digest(
            arm.name, self.rows_key(arm), prompting, recipe.tuning.epochs, asked, recipe.seed,
            self.setup.fingerprint,
        )  # fmt: skip

    # --- the tuned model --------------------------------------------------------------------------

    def tuned(self, arm: Arm) -> tuple[ModelRef, str]:
        """The model that came of it, and what identifies it."""
        if self.named_after is not None:
            return self.named_after, model_fingerprint(self.named_after)
        facts, before = self._remote(arm), self.setup.model.address
        assert before is not None
        address = Address(before.url, facts["model"], before.key_variable)
        ref = ModelRef(address.name, None, address=address)
        return ref, model_fingerprint(ref)

    def client(self, ref: ModelRef, evaluation: Path | None = None) -> Engine:
        """A server's client; its answers last until the evaluation they are for is whole."""
        assert ref.address is not None
        cache = None if evaluation is None else evaluation / PENDING
        if self.setup.model.address is not None:
            return client_of(ref.address, cache=cache)
        return AsMeasured(ref.address, self.measured_text, cache)

    def shared(self, before: Evaluation, after: Evaluation) -> Evaluation:
        """The untouched model's evaluation without what the tuned one's server cannot be asked.

        Such attacks are listed as not run. What gates is kept, and then lacks its counterpart.
        """
        lacking = set(after.settings.get("not_run", {}))
        kept = {
            key: attempt
            for key, attempt in before.attempts.items()
            if attempt.attack not in lacking
            or gates(Surface.parse(attempt.surface), self.recipe.gate, "serve")
        }
        return replace(before, attempts=kept)

    def measured_text(self, prompt: Prompt) -> str:
        """What the untouched model reads of a prompt, by its own template."""
        shown = Prompting(template=prompt.template, template_args=prompt.template_args)
        text: str = self.renderer(shown).prompt_text(prompt)
        return text

    # --- the serving contract ---------------------------------------------------------------------

    def contract(self) -> dict[str, Any]:
        """What could be verified of how the tuned model is served, and what could not."""
        ref, key = self.tuned(MAIN)
        served = self.plan.serve.fingerprint

        def work() -> dict[str, Any]:
            checks = self._checks(ref)
            write_json(self.folder / CONTRACT, {"outcome": overall(checks), "checks": checks})
            return {}

        asked = digest(key, served, self.setup.fingerprint, self.recipe.date)
        self.folder.stage("contract", asked, work, outputs=[CONTRACT], label="serving contract")
        return dict(read_json(self.folder / CONTRACT))

    def _checks(self, ref: ModelRef) -> list[Check]:
        if self.setup.model.address is not None:
            return list(_between_servers(ref))
        from holdfast.contract.endpoint import check_endpoint
        from holdfast.contract.export import contract_of, prove_template
        from holdfast.contract.folder import check_folder

        renderer = self.renderer(self.plan.serve)
        contract = contract_of(renderer, prove_template(renderer), self.setup.model.name)
        if ref.address is not None:
            folder = self.setup.model.path or self.folder.path
            return check_endpoint(folder, contract, ref.address)
        if ref.path is not None:
            return check_folder(ref.path, contract)
        reason = "its files are on the Hub; download it and run `holdfast contract check`"
        return [Check(ref.name, case, "NOT VERIFIABLE", reason) for case in CASES]


class AsMeasured(OpenAIEngine):
    """A served model whose prompts are recorded as the untouched model's template renders them.

    Whether the server renders them so too is the contract's question, not the evaluation's.
    """

    def __init__(self, address: Address, text: Callable[[Prompt], str], cache: Path | None) -> None:
        super().__init__(address, cache=cache)
        self._text = text

    def render(self, prompt: Prompt) -> str:
        """The text that the untouched model was given."""
        return self._text(prompt)


def forget_pending(evaluation: Path) -> None:
    """Drop a server's answers that are in the evaluation now."""
    shutil.rmtree(evaluation / PENDING, ignore_errors=True)


def _between_servers(ref: ModelRef) -> list[Check]:
    """What is known where both models are behind servers: what was sent, not what was read."""
    sent = "every measured request carried the serving prompting in its messages"
    unseen = (
        "no text was rendered here to hold a server's against: the untouched model is served too"
    )
    return [
        Check(ref.name, "what was sent", "HOLDS", sent),
        *(Check(ref.name, case, "NOT VERIFIABLE", unseen) for case in CASES),
    ]
