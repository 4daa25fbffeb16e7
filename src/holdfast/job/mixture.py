"""The first half of the main job: from the user's rows to rendered rows.

    audit → plan → prepare → render

What a mitigation adds is decided here; what the model makes of it is the pipeline's other half.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from typing import Any

import holdfast
from holdfast.audits import Detector
from holdfast.audits.overlap import Overlap
from holdfast.audits.template import Template
from holdfast.engines import Engine
from holdfast.errors import DataError, RecipeError
from holdfast.extras import need
from holdfast.files import (
    digest,
    dumps,
    read_json,
    read_jsonl,
    sha256_file,
    write_json,
    write_jsonl,
)
from holdfast.job import material
from holdfast.job.manifest import manifest
from holdfast.job.rundir import RunFolder
from holdfast.job.setup import Setup
from holdfast.judges import judge
from holdfast.measuring.suites import gather, require_material
from holdfast.mitigations.mimic import BARE
from holdfast.models import ModelRef, load_tokenizer, resolve_model
from holdfast.models import fingerprint as model_fingerprint
from holdfast.progress import say, track
from holdfast.rendering.prompting import Prompting, add_safety_prompt
from holdfast.rendering.transition import Aim
from holdfast.rows.induction import Format
from holdfast.rows.load import RowStream, open_rows
from holdfast.rows.mimicry import Likeness, LikenessCheck, NotChecked
from holdfast.rows.mixing import split_validation
from holdfast.rows.near import NearIndex
from holdfast.rows.pools import Objection, Pool, distinct
from holdfast.rows.stored import StoredRows
from holdfast.rows.style import Donor
from holdfast.rows.triples import DEFAULT_REFUSAL, opening_word, token_ends
from holdfast.stages import prepare
from holdfast.stages.answer import JUDGE, Answered, answer_requests
from holdfast.stages.audit import Audit, check_audit, write_audit
from holdfast.stages.prepare import HoldOut, Mixture, Plan, Sorting, request_key
from holdfast.stages.reform import Form, reform
from holdfast.stages.restyle import donors as rows_to_mimic
from holdfast.stages.restyle import examples_of, restyle
from holdfast.types import Conversation, Dropped, Item


@dataclass(frozen=True, slots=True)
class Arm:
    """A way to tune: the recipe's, or the plain control beside it."""

    name: str
    prefix: str
    """Folder of its artefacts inside the run, with a slash; empty for the recipe's own arm."""


PAIRS = "preference"
"""Folder of an arm's preference pairs, beside its other rendered rows."""

MAIN = Arm("holdfast", "")
PLAIN = Arm("plain", "control/")


class MixtureJob:
    """One recipe's rows at work in one run folder."""

    def __init__(self, setup: Setup, folder: RunFolder) -> None:
        self.setup = setup
        self.recipe = setup.recipe
        self.folder = folder
        self._probes: dict[float, NearIndex] = {}

    def check(self) -> None:
        """Everything that can be known to be missing or impossible, before any work."""
        if self.recipe.safety.dose == "auto":
            raise RecipeError(
                "`safety.dose: auto` is found by `holdfast sweep RECIPE --output DIR`, not by a "
                "single run. Run that, or give `safety.share`."
            )
        if self.renders:
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
                self.recipe.evaluate.hold_out, list(self.setup.asked.tasks), self.recipe.data_dir,
                self.setup.fingerprint, self.plan_without_rows.train.template,
            ),
            self._audit, label="audit",
            outputs=["1-audit.json", "1-audit-evidence.jsonl", "1-rejects.jsonl"],
        )  # fmt: skip
        check_audit(self.folder / "1-audit.json", self.recipe.audit.fail_on)
        return facts

    def _audit(self) -> dict[str, Any]:
        rejects: list[Dropped] = []
        rows = self.rows(rejects)
        asked = self.recipe.evaluate.hold_out
        held = HoldOut(self.recipe.seed)
        audit = Audit(given=self._detectors(), beside=[held])
        audit.read(rows)
        write_jsonl(self.folder / "1-rejects.jsonl", rejects)
        found = audit.report()
        write_audit(self.folder / "1-audit.json", found, rows.announcement)
        say(f"  {rows.announcement}")
        size = prepare.hold_out_size(held.rows, asked)
        chosen = held.choose(size)
        user_rows = held.rows - sum(chosen.values())
        if not user_rows:
            raise DataError(
                f"Holding out {size:,} requests leaves no row to train on, as the rows ask the "
                "same. Add rows, or set `evaluate.hold_out: 0`."
            )
        return {
            "rows": held.rows,
            "announcement": rows.announcement,
            "formats": [f.to_json() for f in found.formats],
            "held_out": sorted(chosen),
            "user_rows": user_rows,
        }

    def _detectors(self) -> dict[str, Detector]:
        """What the audit of a run can see and that of the rows alone cannot."""
        given: dict[str, Detector] = {
            "overlap": Overlap(self.probes(material.likeness(self.recipe.data)))
        }
        if self.renders:
            train = self.plan_without_rows.train.template
            given["template"] = Template(self.tokenizer.chat_template, train)
        return given

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
        return [Format.from_json(f) for f in self.audited["formats"]]

    # --- prepare ------------------------------------------------------------------------------

    @cached_property
    def split(self) -> dict[str, Any]:
        """Which requests of the user's are kept for validation; how many rows remain."""
        asked, user_rows = self.recipe.tuning.validation, self.audited["user_rows"]
        if not asked:
            return {"validated": [], "user_rows": user_rows}
        recipe = self.recipe
        key = digest(self.audited, self.setup.data_key, asked, recipe.mitigations, recipe.safety,
                     recipe.borderline, recipe.triples, recipe.seed)  # fmt: skip
        return self.folder.stage("split", key, self._split, outputs=[], label="split")

    def _split(self) -> dict[str, Any]:
        user_rows = self.audited["user_rows"]
        requests = self._plan(self.formats, user_rows, self._bare_donors).requests
        wanted = split_validation(user_rows, requests, self.recipe.tuning.validation)
        keys = HoldOut(self.recipe.seed)
        for row in track(self.rows(), "split", total=self.audited["rows"]):
            keys.see(row)
        chosen = keys.choose_rows(wanted.user, frozenset(self.audited["held_out"]))
        return {
            "validated": sorted(chosen),
            "user_rows": user_rows - sum(chosen.values()),
            "added": list(wanted.added),
        }

    @cached_property
    def plan(self) -> Plan:
        """What the mitigations ask of rows and prompting."""
        return self._planned(self._bare_donors)

    def _planned(self, donors: Sequence[Sequence[Donor]]) -> Plan:
        planned = self._plan(self.formats, self.split["user_rows"], donors)
        return planned.with_validation(self.split.get("added", [0] * len(planned.dosed)))

    @cached_property
    def plan_without_rows(self) -> Plan:
        """The plan as far as it is known before any row is read."""
        return self._plan([], 1000, [])

    def _plan(
        self, formats: list[Format], user_rows: int, donors: Sequence[Sequence[Donor]]
    ) -> Plan:
        return prepare.plan(
            self.recipe.mitigations,
            train=self.setup.train,
            serve=self.setup.serve,
            safety_prompt=self.setup.safety_prompt,
            formats=formats,
            user_rows=user_rows,
            dose=self.recipe.safety.amount(),
            borderline=self.recipe.borderline.amount(),
            defences=self.setup.defences,
            triples=self.recipe.triples,
            token_ends=lambda text: token_ends(self.tokenizer)(text),
            mimic=self.recipe.mimic,
            donors=donors,
        )

    @property
    def _bare_donors(self) -> list[list[Donor]]:
        """Rows to mimic, where it takes them to know whether there is anything to mimic."""
        return [] if self.formats else self.donors

    @property
    def _rewords(self) -> bool:
        """Whether a model puts safety requests into the style of the user's questions."""
        asked = "mimic" in self.recipe.mitigations and self.recipe.mimic.mode == "llm"
        return asked and any(self.donors)

    @cached_property
    def donors(self) -> list[list[Donor]]:
        """For each format, some user rows that are trained on, for safety rows to mimic."""
        if not {"mimic", "safety_mix_words"} & set(self.recipe.mitigations):
            return []
        beyond = frozenset(self.audited["held_out"])
        return rows_to_mimic(self.rows(), self.formats or [BARE], beyond, self.recipe.seed)

    def prepare(self) -> dict[str, Any]:
        """The mixture, exact to the row."""
        recipe = self.recipe
        key = digest(
            self.audited, self.setup.data_key, recipe.mitigations, recipe.safety, recipe.borderline,
            recipe.triples, recipe.mimic, recipe.seed,
            recipe.model_dump(include={"prompting", "licence", "data_dir"}),
            list(self.setup.asked.tasks), self.setup.fingerprint, recipe.date,
            recipe.tuning.validation,
        )  # fmt: skip
        return self.folder.stage(
            "prepare", key, self._prepare,
            outputs=[*prepare.ARTEFACTS, "manifest.json"], label="prepare",
        )  # fmt: skip

    def _prepare(self) -> dict[str, Any]:
        data_key, user_rows = self.setup.data_key, self.split["user_rows"]
        self.plan = self._planned(self.donors)
        for note in self.plan.notes:
            say(f"  note: {note}")
        pools = {name: self._pool(name, n) for name, n in material.pools_wanted(self.plan).items()}
        self.plan = prepare.even_out(
            self.plan, pools, user_rows=user_rows, seed=self.recipe.seed
        )  # fmt: skip
        drawn = prepare.draw(
            self.plan, pools, user_rows=user_rows, seed=self.recipe.seed,
            repeat=[p for p in pools if getattr(self.recipe, p).repeat],
        )  # fmt: skip
        rejects = [Dropped(**row) for row in read_jsonl(self.folder / "1-rejects.jsonl")]
        sorting = Sorting(
            self.recipe.seed, frozenset(self.audited["held_out"]),
            frozenset(self.split["validated"]),
            self.probes(material.likeness(self.recipe.data)).find,
        )  # fmt: skip
        check = LikenessCheck()
        mimics = any(request.source == "mimic" for request in self.plan.requests)
        mixture = prepare.write_mixture(
            self.folder.path, self.rows(), drawn, sorting, user_rows=user_rows,
            dropped=[*rejects, *chain.from_iterable(pool.dropped for pool in pools.values())],
            watch=check if mimics else None,
        )  # fmt: skip
        if self.setup.data_key != data_key:
            raise DataError(
                f"{self.recipe.data} changed while it was read. Leave the file alone during a run, "
                "and run again."
            )
        self._say_mixture(mixture)
        found = check.result() if mimics else None
        if found:
            say(f"  {found.line}")
        self._write_manifest(pools, mixture, found)
        return {"by_source": mixture.by_source, "held_out": mixture.held_out,
                "validation": mixture.validation, "refusal": self._refusal(pools)}  # fmt: skip

    def _refusal(self, pools: Mapping[str, Pool]) -> str:
        """The word that transition rows aim at: the one named, or what opens the refusals drawn."""
        named = self.recipe.triples.transition.refusal
        if "triples" not in pools:
            return named or DEFAULT_REFUSAL
        word, share = opening_word(pools["triples"].rows)
        if named is not None:
            return named
        say(f"  transitions aim at {word!r}, which opens {100 * share:.0f} % of the refusals")
        return word

    def _say_mixture(self, mixture: Mixture) -> None:
        """The counts, as they stand in the files."""
        for dosed in self.plan.dosed:
            say(f"  {dosed.line}")
        say(f"  {mixture.total:,} rows to train on: {_listed(mixture.by_source)}")
        if mixture.validation:
            say(
                f"  {sum(mixture.validation.values()):,} rows to validate on: "
                f"{_listed(mixture.validation)}"
            )
        say(f"  {mixture.held_out:,} of the user's rows held out, {mixture.dropped:,} set aside")
        if mixture.overlap:
            say(
                f"  note: {sum(mixture.overlap.values()):,} of the user's rows repeat evaluation "
                f"items ({_listed(mixture.overlap)}); they are trained on, and listed in "
                f"{prepare.OVERLAP}"
            )

    def _write_manifest(
        self,
        pools: Mapping[str, Pool],
        mixture: Mixture,
        found: Likeness | NotChecked | None,
    ) -> None:
        named = {name: sha256_file(self.folder / name) for name in prepare.ARTEFACTS}
        about = {**mixture.to_json(), "plan": self.plan.to_json(),
                 "rows": prepare.ROWS, "files": named}  # fmt: skip
        if found:
            about["mimicry"] = {"mode": self.recipe.mimic.mode, **found.to_json()}
        origins: dict[str, dict[str, Any]] = {
            name: {"origin": p.origin, "licence": p.licence, "rows": len(p.rows),
                   "set_aside": p.set_aside}
            for name, p in pools.items()
        }  # fmt: skip
        template = self.renderer(self.plan.serve).template if self.renders else None
        write_json(
            self.folder / "manifest.json",
            manifest(self.setup, about, origins, template, self.audited["announcement"]),
        )

    # --- pools --------------------------------------------------------------------------------

    def _pool(self, name: str, wanted: int) -> Pool:
        """A pool, and a line on what was set aside from it."""
        reworded = name == "safety" and self._rewords
        more = wanted // 2 if reworded else 0  # some rewrites will be rejected
        pool = material.read_pool(name, self.setup, wanted + more, self.overlap, self)
        if reworded:
            self._restyle(pool, wanted)
        aside = f"; set aside: {_listed(pool.set_aside)}" if pool.dropped else ""
        terms = f" ({pool.licence}: no commercial use)" if "-NC-" in pool.licence else ""
        say(f"  {name} pool: {len(pool.rows):,} rows of {pool.origin}{terms}{aside}")
        return pool

    def _restyle(self, pool: Pool, wanted: int) -> None:
        """The pool's requests in the user's style; rejected rewrites are set aside and counted."""
        engine, prompting, fingerprint = self._rewriter(self.recipe.mimic.rewriter)
        examples = examples_of(self.donors)
        made = digest(fingerprint, examples, prompting.fingerprint, self.recipe.seed)
        rows = restyle(
            pool.rows, examples, engine, self.folder / f"2-safety-restyled-{made[:8]}.jsonl",
            pool.dropped.append, prompting=prompting, seed=self.recipe.seed,
        )  # fmt: skip
        least = material.likeness(pool.origin, self.recipe.safety.near_duplicate)
        objections = [lambda row: self.overlap(row.request, least)]
        pool.rows = list(islice(distinct(rows, objections, pool.dropped.append), wanted))

    def overlap(self, request: str, likeness: float) -> str | None:
        """How a request repeats what evaluation asks, or None."""
        match = self.probes(likeness).find(request)
        if match is not None:
            return match.reason
        held = request_key(request, self.recipe.seed) in self.audited["held_out"]
        return "also asked in evaluation (the user's held-out rows)" if held else None

    def probes(self, likeness: float) -> NearIndex:
        """Everything the run's tasks could ask, whatever the limits of this run."""
        if likeness not in self._probes:
            tasks = dict.fromkeys(self.setup.asked.tasks)
            items = gather(tasks, self.setup.context, seed=self.recipe.seed)
            named = ((f"{item.task}/{item.id}", item.request) for item in items)
            self._probes[likeness] = NearIndex(named, likeness)
        return self._probes[likeness]

    def answer(
        self, pool: str, requests: Iterable[Conversation], filters: Sequence[Objection]
    ) -> Answered:
        """A pool's requests answered by the untouched model."""
        safety = pool == "safety"
        under = add_safety_prompt(self.setup.serve, self.setup.safety_prompt)
        prompting = under if safety else self.setup.serve
        decoding = self.setup.asked.decoding(self.recipe.seed)
        # Answers outlive a change of dose, but not of model, prompt, decoding or judge.
        asked = digest(
            self.setup.fingerprint, prompting.fingerprint, decoding, judge(JUDGE).version
        )
        return answer_requests(
            self.engine(self.setup.model),
            requests,
            prompting,
            "full_refusal" if safety else "full_compliance",
            material.pools_wanted(self.plan)[pool],
            self.folder.lasting(f"2-{pool}-answers-{asked[:8]}.jsonl"),
            decoding,
            cure=f"Give rows with `{pool}.source: FILE` (or `p1` for safety rows), or ask for a "
            f"smaller dose, such as `{pool}.count: {{kept}}`.",
            filters=filters,
        )

    def rewrite(
        self, rows: Iterable[Conversation], form: Form, drop: Callable[[Dropped], None]
    ) -> Iterator[Conversation]:
        """Safety requests in one form, rewritten by the untouched model or the one named."""
        engine, prompting, fingerprint = self._rewriter(self.recipe.safety.rewriter)
        made = digest(fingerprint, form, self.setup.serve.fingerprint, self.recipe.seed)
        return reform(
            rows, form, engine, self.folder / f"2-safety-{form}-{made[:8]}.jsonl", drop,
            prompting=prompting, seed=self.recipe.seed,
        )  # fmt: skip

    def _rewriter(self, named: str) -> tuple[Callable[[], Engine], Prompting, str]:
        """What makes the rewriting model, what it is asked under, and what identifies it."""
        from holdfast.engines._open import open_engine

        if named == "self":
            model = self.setup.model
            return lambda: self.engine(model), self.setup.serve, self.setup.fingerprint
        other = resolve_model(named)
        return lambda: open_engine(other), Prompting(), model_fingerprint(other)

    # --- render -------------------------------------------------------------------------------

    def render(self) -> dict[str, Any]:
        """The mixture as token ids and labels; of a served model, nothing to render with."""
        if not self.renders:
            say(f"· render: skipped, as {self.setup.model.name} has no tokenizer here")
            return {}
        facts = self._render(MAIN)
        self._store_targets(facts)
        if self.recipe.control == "plain":
            self._render(PLAIN)
        return facts

    def _store_targets(self, facts: Mapping[str, Any]) -> None:
        """The token budget, beside the rows it comes from."""
        path = self.folder / "manifest.json"
        stored = read_json(path)
        if stored["mixture"].get("targets") != facts["targets"]:
            stored["mixture"]["targets"] = facts["targets"]
            write_json(path, stored)

    def _render(self, arm: Arm) -> dict[str, Any]:
        prompting = self.prompting_in_training(arm)
        length = self.recipe.tuning.max_length
        key = digest(
            self.rows_key(arm), self.setup.fingerprint, prompting.fingerprint, length,
            self.recipe.date, self.aim,
        )  # fmt: skip

        def work() -> dict[str, Any]:
            from holdfast.stages.render import render, render_pairs

            renderer = self.renderer(prompting, length, self.aim)
            folder = f"{arm.prefix}3-rendered"
            facts = render(renderer, self.mixture(arm), self.folder / folder)
            if facts["preference_pairs"]:
                need("trl", extra="trl", purpose="training on preference pairs (`dpo`)")
                render_pairs(renderer, self.mixture(arm), self.folder / folder / PAIRS)
            if self.validates(arm):
                say("  to validate on:")
                render(renderer, self.validation(arm), self.folder / folder / "validation")
            return facts

        label = "render" if arm is MAIN else f"render ({arm.name})"
        return self.folder.stage(
            f"{arm.prefix}render", key, work, outputs=[f"{arm.prefix}3-rendered"], label=label
        )

    @cached_property
    def prepare_key(self) -> str:
        """What identifies the mixture."""
        return digest(self.prepare(), read_json(self.folder / "stages.json")["prepare"]["key"])

    def rows_key(self, arm: Arm) -> str:
        """What identifies the rows an arm trains on; the control's are the same at every dose."""
        return self.prepare_key if arm is MAIN else self._users_key

    @cached_property
    def _users_key(self) -> str:
        rows = hashlib.sha256()
        for row in chain(self.mixture(PLAIN), self.validation(PLAIN)):
            rows.update(dumps(row).encode("utf-8", "surrogatepass"))
        return digest(rows.hexdigest(), self.recipe.seed)

    def mixture(self, arm: Arm) -> StoredRows:
        """Rows an arm trains on: all, or the user's alone."""
        return self._rows_of(arm, prepare.MIXTURE)

    def validation(self, arm: Arm) -> StoredRows:
        """Rows whose loss is watched while an arm trains."""
        return self._rows_of(arm, prepare.VALIDATION)

    def validates(self, arm: Arm) -> bool:
        """Whether an arm has validation rows: few rows may give none."""
        counts = self.prepare()["validation"]
        return bool(counts if arm is MAIN else counts.get("user"))

    def _rows_of(self, arm: Arm, name: str) -> StoredRows:
        return StoredRows(self.folder / name, None if arm is MAIN else "user")

    def prompting_in_training(self, arm: Arm) -> Prompting:
        """Training prompting of an arm."""
        return self.plan.train if arm is MAIN else self.setup.train

    def renderer(
        self, prompting: Prompting, max_length: int | None = None, aim: Aim | None = None
    ) -> Any:
        """A renderer for the run's tokenizer."""
        from holdfast.rendering.render import Renderer

        return Renderer(
            self.tokenizer, prompting, date=self.recipe.date, max_length=max_length, aim=aim
        )

    @cached_property
    def aim(self) -> Aim:
        """What transition rows of the run aim at."""
        asked = self.recipe.triples.transition
        return Aim(
            self.prepare()["refusal"], asked.keep, asked.end, asked.constant, self.recipe.seed
        )

    @property
    def renders(self) -> bool:
        """Whether rows can be rendered here: a served model's tokenizer is not known."""
        return self.setup.model.address is None

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
        """A model, ready to answer."""
        from holdfast.engines._open import local, served

        if model.address is not None:
            return served(model.address)
        asked = self.recipe.evaluate
        return local(
            model, kind=asked.engine, arguments=asked.engine_args, tokenizer=self.tokenizer,
            date=self.recipe.date,
        )  # fmt: skip


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
