"""The first half of the main job: from the user's rows to rendered rows.

    audit → plan → prepare → render

What a mitigation adds is decided here; what the model makes of it is the pipeline's other half.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import holdfast
from holdfast import material
from holdfast.engines import Engine
from holdfast.files import digest, read_json, read_jsonl, write_json, write_jsonl
from holdfast.formats import Format
from holdfast.load import RowStream, open_rows
from holdfast.manifest import manifest
from holdfast.mixing import ordered
from holdfast.models import ModelRef, load_model, load_tokenizer
from holdfast.pools import Pool
from holdfast.progress import say, track
from holdfast.prompting import Prompting, add_safety_prompt
from holdfast.rundir import RunFolder
from holdfast.setup import Setup
from holdfast.stages import prepare
from holdfast.stages.answer import answer_requests
from holdfast.stages.audit import Audit, check_audit, write_audit
from holdfast.stages.prepare import HoldOut, Plan
from holdfast.suites import gather, require_material
from holdfast.types import Conversation, Dropped, Item


@dataclass(frozen=True, slots=True)
class Arm:
    """A way to tune: the recipe's, or the plain control beside it."""

    name: str
    prefix: str
    """Folder of its artefacts inside the run, with a slash; empty for the recipe's own arm."""


MAIN = Arm("holdfast", "")
PLAIN = Arm("plain", "control/")


class MixtureJob:
    """One recipe's rows at work in one run folder."""

    def __init__(self, setup: Setup, folder: RunFolder) -> None:
        self.setup = setup
        self.recipe = setup.recipe
        self.folder = folder

    def check(self) -> None:
        """Everything that can be known to be missing or impossible, before any work."""
        self.renderer(self.plan_without_rows.train)
        self.renderer(self.plan_without_rows.serve)
        pools = material.pools_wanted(self.plan_without_rows)
        require_material(material.missing(self.setup, pools))

    # --- audit --------------------------------------------------------------------------------

    def audit(self) -> dict[str, Any]:
        """What in the user's rows tends to erode safety; their formats; what to hold out."""
        facts = self.folder.stage(
            "audit", digest(
                holdfast.__version__, self.setup.data_key, self.recipe.seed,
                self.recipe.evaluate.hold_out,
            ),
            self._audit, outputs=["1-audit.json", "1-rejects.jsonl"], label="audit",
        )  # fmt: skip
        check_audit(self.folder / "1-audit.json", self.recipe.audit.fail_on)
        return facts

    def _audit(self) -> dict[str, Any]:
        rejects: list[Dropped] = []
        rows = self.rows(rejects)
        audit = Audit()
        asked = self.recipe.evaluate.hold_out
        held = HoldOut(self.recipe.seed, prepare.HOLD_OUT_MOST if asked is None else asked)
        for row in track(rows, "audit"):
            audit.see(row)
            held.see(row)
        write_jsonl(self.folder / "1-rejects.jsonl", rejects)
        found = audit.report()
        write_audit(self.folder / "1-audit.json", found, rows.announcement)
        say(f"  {rows.announcement}")
        size = prepare.hold_out_size(held.rows, asked)
        chosen = held.choose(size)
        return {
            "rows": held.rows,
            "announcement": rows.announcement,
            "formats": [f.to_json() for f in found.formats],
            "held_out": sorted(chosen),
            "user_rows": held.rows - sum(chosen.values()),
        }

    def rows(self, rejects: list[Dropped] | None = None) -> RowStream:
        """The user's rows, streamed."""
        return open_rows(
            self.recipe.data,
            columns=self.recipe.columns,
            split=self.recipe.split,
            strict=self.recipe.strict,
            on_reject=rejects.append if rejects is not None else None,
        )

    @cached_property
    def audited(self) -> dict[str, Any]:
        """Facts of the audit stage."""
        return self.audit()

    @cached_property
    def formats(self) -> list[Format]:
        """Formats that the user's rows share."""
        return [Format(**f) for f in self.audited["formats"]]

    # --- prepare ------------------------------------------------------------------------------

    @cached_property
    def plan(self) -> Plan:
        """What the mitigations ask of rows and prompting."""
        return self._plan(self.formats, self.audited["user_rows"])

    @cached_property
    def plan_without_rows(self) -> Plan:
        """The plan as far as it is known before any row is read."""
        return self._plan([], 1000)

    def _plan(self, formats: list[Format], user_rows: int) -> Plan:
        dose = {"count", "share", "ratio", "at_least"}
        return prepare.plan(
            self.recipe.mitigations,
            train=self.setup.train,
            serve=self.setup.serve,
            safety_prompt=self.setup.safety_prompt,
            formats=formats,
            user_rows=user_rows,
            dose=self.recipe.safety.model_dump(include=dose),
            borderline=self.recipe.borderline.model_dump(include=dose),
        )

    def prepare(self) -> dict[str, Any]:
        """The mixture, exact to the row."""
        recipe = self.recipe
        key = digest(
            self.audited, self.setup.data_key, recipe.mitigations, recipe.safety, recipe.borderline,
            recipe.seed, recipe.model_dump(include={"prompting", "licence", "data_dir"}),
            dict(self.setup.asked.tasks), self.setup.fingerprint,
        )  # fmt: skip
        return self.folder.stage(
            "prepare", key, self._prepare,
            outputs=["2-mixture.jsonl", "2-held-out.jsonl", "2-dropped.jsonl", "manifest.json"],
            label="prepare",
        )  # fmt: skip

    def _prepare(self) -> dict[str, Any]:
        user_rows = self.audited["user_rows"]
        for note in self.plan.notes:
            say(f"  note: {note}")
        pools = {
            name: material.read_pool(name, self.setup, self.benchmark_items, self._answered)
            for name in material.pools_wanted(self.plan)
        }
        added = prepare.draw(
            self.plan, pools, user_rows=user_rows, seed=self.recipe.seed,
            repeat=[p for p in pools if getattr(self.recipe, p).repeat],
        )  # fmt: skip
        rejects = [Dropped(**row) for row in read_jsonl(self.folder / "1-rejects.jsonl")]
        mixture = prepare.write_mixture(
            self.folder.path, track(self.rows(), "prepare", total=self.audited["rows"]), added,
            held_out=frozenset(self.audited["held_out"]),
            user_rows=user_rows, seed=self.recipe.seed,
            dropped=[*rejects, *chain.from_iterable(pool.dropped for pool in pools.values())],
        )  # fmt: skip
        for dosed in self.plan.dosed:
            say(
                f"  {dosed.source}: {dosed.rows:,} rows, {100 * dosed.share:.2f} % of the mixture, "
                f"{100 * dosed.ratio:.2f} % of the user's rows"
            )
        self._write_manifest(pools, mixture.by_source, mixture.held_out, mixture.dropped)
        return {"by_source": mixture.by_source, "held_out": mixture.held_out}

    def _write_manifest(
        self, pools: Mapping[str, Pool], by_source: Mapping[str, int], held_out: int, dropped: int
    ) -> None:
        mixture = {"by_source": dict(sorted(by_source.items())), "held_out": held_out,
                   "dropped": dropped, "plan": self.plan.to_json()}  # fmt: skip
        origins = {name: {"origin": p.origin, "licence": p.licence} for name, p in pools.items()}
        template = self.renderer(self.plan.serve).template
        write_json(
            self.folder / "manifest.json",
            manifest(self.setup, mixture, origins, template, self.audited["announcement"]),
        )

    def _answered(self, pool: str, requests: list[Conversation]) -> list[Conversation]:
        """A pool's requests answered by the untouched model."""
        wanted = material.pools_wanted(self.plan)[pool]
        safety = pool == "safety"
        under = add_safety_prompt(self.setup.serve, self.setup.safety_prompt)
        # Answers outlive a change of dose, but not of model or prompt.
        asked = digest(self.setup.fingerprint, under.fingerprint, self.setup.serve.fingerprint)
        path = self.folder / f"2-{pool}-answers-{asked[:8]}.jsonl"
        return answer_requests(
            self.engine(self.setup.model),
            ordered(requests, self.recipe.seed),
            under if safety else self.setup.serve,
            "full_refusal" if safety else "full_compliance",
            wanted, path, self.setup.asked.decoding(self.recipe.seed),
            cure=f"Give rows with `{pool}.source: FILE` (or `p1` for safety rows), or ask for a "
            f"smaller dose with `{pool}.count`.",
        )  # fmt: skip

    # --- render -------------------------------------------------------------------------------

    def render(self) -> dict[str, Any]:
        """The mixture as token ids and labels."""
        facts = self._render(MAIN)
        if self.recipe.control == "plain":
            self._render(PLAIN)
        return facts

    def _render(self, arm: Arm) -> dict[str, Any]:
        prompting = self.prompting_in_training(arm)
        length = self.recipe.tuning.max_length
        key = digest(self.prepare_key, self.setup.fingerprint, prompting.fingerprint, length)

        def work() -> dict[str, Any]:
            from holdfast.stages.render import render

            return render(
                self.renderer(prompting, length), track(self.mixture(arm), "render"),
                self.folder / f"{arm.prefix}3-rendered",
            )  # fmt: skip

        label = "render" if arm is MAIN else f"render ({arm.name})"
        return self.folder.stage(
            f"{arm.prefix}render", key, work, outputs=[f"{arm.prefix}3-rendered"], label=label
        )

    @cached_property
    def prepare_key(self) -> str:
        """What identifies the mixture."""
        return digest(self.prepare(), read_json(self.folder / "stages.json")["prepare"]["key"])

    def mixture(self, arm: Arm) -> Iterator[Conversation]:
        """Rows an arm trains on: all, or the user's alone."""
        for row in read_jsonl(self.folder / "2-mixture.jsonl"):
            if arm is MAIN or row["source"] == "user":
                yield Conversation.from_json(row)

    def prompting_in_training(self, arm: Arm) -> Prompting:
        """Training prompting of an arm."""
        return self.plan.train if arm is MAIN else self.setup.train

    def renderer(self, prompting: Prompting, max_length: int | None = None) -> Any:
        """A renderer for the run's tokenizer."""
        from holdfast.render import Renderer

        return Renderer(self.tokenizer, prompting, date=self.recipe.date, max_length=max_length)

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return load_tokenizer(self.setup.model)

    @cached_property
    def benchmark_items(self) -> list[Item]:
        """Items of the suite's tasks."""
        return gather(
            self.setup.asked.tasks, self.setup.context, seed=self.recipe.seed,
            limit=self.recipe.evaluate.limit,
        )  # fmt: skip

    def engine(self, model: ModelRef) -> Engine:
        """A local model, ready to answer."""
        from holdfast.engines.transformers import TransformersEngine

        return TransformersEngine(
            load_model(model), self.tokenizer, name="transformers", date=self.recipe.date
        )
