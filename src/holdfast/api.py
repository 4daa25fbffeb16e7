"""The library half, for notebooks: the same stages on things that are already loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.attacks import AttackContext
from holdfast.engines import Engine
from holdfast.engines._open import in_use
from holdfast.errors import RecipeError
from holdfast.files import digest, read_json
from holdfast.measuring.asking import Asked, ask, context_of, what_to_ask
from holdfast.measuring.evaluation import Evaluation
from holdfast.measuring.noise import TEMPERATURE, measure_noise
from holdfast.measuring.suites import gather, missing_material, require_material
from holdfast.mitigations.mimic import BARE
from holdfast.recipe import (
    DATE,
    BorderlineSettings,
    Dose,
    GateSettings,
    TriplesSettings,
    build_recipe,
)
from holdfast.rendering.prompting import SAFETY_PROMPTS, Prompting
from holdfast.rendering.published import system_prompt
from holdfast.rendering.rendered import RenderedRows
from holdfast.rendering.transition import Aim
from holdfast.rows.held_out import task_questions
from holdfast.rows.induction import FormatSample
from holdfast.rows.load import open_rows
from holdfast.rows.mixing import ordered
from holdfast.rows.pools import Pool, clean_pool
from holdfast.rows.preference import is_pair
from holdfast.rows.triples import join_triples, opening_word, token_ends
from holdfast.stages import prepare as stage
from holdfast.stages.compare import read_and_compare
from holdfast.stages.planning import Served
from holdfast.stages.restyle import donors
from holdfast.stages.watch import Against
from holdfast.types import Conversation, Message

_NO_RUN = {"model": "-", "data": "-", "run": "-"}


def prepare(
    dataset: str | Path | Iterable[Mapping[str, Any] | Conversation],
    tokenizer: Any,
    *,
    mitigations: Sequence[str] = ("mimic",),
    safety: str | Path | Iterable[Mapping[str, Any] | Conversation] = (),
    borderline: str | Path | Iterable[Mapping[str, Any] | Conversation] = (),
    triples: str | Path | Iterable[Mapping[str, Any] | Conversation] = (),
    share: float | None = None,
    count: int | None = None,
    borderline_count: int | None = None,
    triples_settings: Mapping[str, Any] | None = None,
    max_length: int | None = None,
    seed: int = 0,
) -> RenderedRows:
    """User rows with mitigations mixed in, rendered: what any trainer of labels can train on.

    Args:
        dataset: a file, a Hub id, `lab:NAME`, or rows with `messages`.
        tokenizer: a fast tokenizer with a chat template.
        mitigations: names on the shelf, applied in order.
        safety: the safety demonstrations to draw from, in the same forms.
        borderline: look-alikes with helpful answers, in the same forms.
        triples: requests with refusal and harmful answer; rows have a segmented reply, or are a
            source that the loader reads as triples.
        share: of safety rows in the final set; None with `count` None: 3 %.
        count: of safety rows, instead of a share.
        borderline_count: of look-alike rows; None: 10 % of the final set.
        triples_settings: dose, `prefix` and `transition` of triples, as the recipe's `triples`.
        max_length: longest row in tokens.
        seed: of the choice and order of rows.

    Returns:
        Rows with `input_ids` and `labels`, in mixed order. `datasets.Dataset.from_list(list(rows))`
        makes a `Dataset` of them.

    Raises:
        HoldfastError: rows that cannot be read, a dose that cannot be reached, a template that
            cannot be trusted with labels.
    """
    from holdfast.rendering.render import Renderer

    user = conversations(dataset, "user")
    sample = FormatSample()
    for row in user:
        sample.see(row)
    plain = Prompting()
    dose = Dose(count=count, share=0.03 if share is None and count is None else share)
    block = TriplesSettings.model_validate(dict(triples_settings or {}))
    formats = sample.formats()
    planned = stage.plan(
        mitigations,
        train=plain,
        serve=plain,
        safety_prompt=SAFETY_PROMPTS["holdfast-default"],
        formats=formats,
        user_rows=len(user),
        dose=dose.model_dump(),
        borderline=BorderlineSettings(count=borderline_count).amount(),
        triples=block,
        token_ends=token_ends(tokenizer),
        donors=donors(user, formats or [BARE], (), seed),
    )
    paired = conversations(triples, "triples", triples=True)
    pools = {
        "safety": _pool("safety", conversations(safety, "safety"), seed),
        "borderline": _pool("borderline", conversations(borderline, "borderline"), seed),
        "triples": _pool("triples", join_triples(paired, lambda row: None), seed),
    }
    added = stage.draw(planned, pools, user_rows=len(user), seed=seed).rows
    if any(map(is_pair, added)):
        raise RecipeError(
            "Preference pairs (`dpo`) are trained by their two answers, and labels cannot say so. "
            "Train them with `holdfast run` and `mitigations: [dpo]`."
        )
    mixed = stage.interleave(ordered(user, seed), added, len(user))
    asked = block.transition
    word = asked.refusal or opening_word(pools["triples"].rows)[0]
    aim = Aim(word, asked.keep, asked.end, asked.constant, seed)
    renderer = Renderer(tokenizer, planned.train, max_length=max_length, aim=aim)
    return RenderedRows.of(renderer.rows(mixed))


def conversations(
    rows: str | Path | Iterable[Mapping[str, Any] | Conversation],
    source: str,
    *,
    triples: bool = False,
) -> list[Conversation]:
    """Rows in any of the forms the library takes, as conversations."""
    if isinstance(rows, (str, Path)):
        return list(open_rows(rows, source=source, triples=triples))
    return [
        row if isinstance(row, Conversation) else _conversation(row, number, source)
        for number, row in enumerate(rows)
    ]


def _conversation(row: Mapping[str, Any], number: int, source: str) -> Conversation:
    turns = tuple(Message.from_json(message) for message in row["messages"])
    return Conversation(str(row.get("id", f"{number}-{digest(row)[:8]}")), turns, source)


def _pool(name: str, rows: Iterable[Conversation], seed: int) -> Pool:
    pool = clean_pool(name, rows, lambda request: None)
    pool.rows = ordered(pool.rows, seed)
    return pool


def evaluate(
    model: Any,
    output: str | Path,
    *,
    tokenizer: Any = None,
    system: str | None = None,
    data_dir: str | Path | None = None,
    seed: int = 0,
    against: str | Path | None = None,
    **settings: Any,
) -> Path:
    """Ask a model the suite's tasks under the suite's attacks, and judge the answers.

    Args:
        model: a folder, a Hub id, `lab:chat`, `http://HOST:PORT/v1#MODEL`, `openai:MODEL`, or a
            loaded model (with its `tokenizer`).
        output: the evaluation folder; an interrupted one goes on.
        tokenizer: of a loaded model.
        system: system prompt the model is asked under: a text or a safety prompt's name.
        data_dir: folder with benchmark files.
        seed: of the choice of items.
        against: the earlier evaluation folder, for asking sequentially: no further than it takes to
            decide each cell by the default gate.
        **settings: any key of the recipe's `evaluate` block, such as `suite` or `tasks`.

    Returns:
        The evaluation folder, which `compare` reads.

    Raises:
        HoldfastError: a model, task or file that is not there.
    """
    if settings.pop("sequential", False) and against is None:
        raise RecipeError(
            "Asking sequentially needs the earlier evaluation that it is to be compared with: give "
            "`against`, the untouched model's evaluation folder."
        )
    earlier = None if against is None else Against(Evaluation.read(Path(against)), GateSettings())
    engine, asked, how = _question(model, tokenizer, system, data_dir, seed, settings)
    with in_use(engine):
        ask(engine, asked=asked, output=Path(output), seed=seed, against=earlier, **how)
    return Path(output)


def noise(
    model: Any,
    output: str | Path,
    *,
    repeats: int = 3,
    temperature: float = TEMPERATURE,
    tokenizer: Any = None,
    system: str | None = None,
    data_dir: str | Path | None = None,
    seed: int = 0,
    **settings: Any,
) -> dict[str, Any]:
    """The noise floor: one model asked again and again, and how far its cells move.

    Args:
        model: as in `evaluate`.
        output: folder for the repeated evaluations and `noise.json`.
        repeats: evaluations under sampled decoding, at least two.
        temperature: of those.
        tokenizer: of a loaded model.
        system: system prompt the model is asked under.
        data_dir: folder with benchmark files.
        seed: of the choice of items.
        **settings: any key of the recipe's `evaluate` block.

    Returns:
        What `noise.json` holds.

    Raises:
        HoldfastError: a model, task or file that is not there, or fewer than two repetitions.
    """
    engine, asked, how = _question(model, tokenizer, system, data_dir, seed, settings)

    def again(engine: Any, asked: Asked, folder: Path, seed: int) -> None:
        ask(engine, asked=asked, output=folder, seed=seed, **how)

    with in_use(engine):
        path = measure_noise(
            again, engine, asked, Path(output), repeats=repeats, temperature=temperature
        )
    return dict(read_json(path))


def _question(
    model: Any,
    tokenizer: Any,
    system: str | None,
    data_dir: str | Path | None,
    seed: int,
    settings: Mapping[str, Any],
) -> tuple[Engine, Asked, dict[str, Any]]:
    """Who is asked, what, and how: all that `ask` needs but folder and seed of decoding."""
    from holdfast.engines._open import open_engine
    from holdfast.engines.transformers import TransformersEngine
    from holdfast.models import fingerprint, quiet_libraries, resolve_model

    quiet_libraries()
    ref = resolve_model(model) if isinstance(model, (str, Path)) else None
    block = build_recipe({**_NO_RUN, "evaluate": settings}).evaluate
    context = context_of(data_dir)
    asked = what_to_ask(
        block, lab=ref is not None and ref.is_lab,
        served=ref is not None and ref.address is not None, context=context,
    )  # fmt: skip
    require_material(missing_material(list(asked.tasks), context))
    engine: Engine = (
        open_engine(ref, block.engine, block.engine_args)
        if ref is not None
        else TransformersEngine(model, tokenizer, name="transformers")
    )
    items = gather(asked.tasks, context, seed=seed, limit=block.limit)
    how = {
        "items": items,
        "promptings": {"serve": Served(Prompting(system_prompt(system, context)))},
        "context": AttackContext(questions=task_questions(items, ()), seed=seed),
        "fingerprint": fingerprint(ref) if ref is not None else "a model in memory",
        "date": DATE,
    }
    return engine, asked, how


def compare(before: str | Path, after: str | Path, **gate: Any) -> dict[str, Any]:
    """The gate's verdict on two evaluation folders.

    Args:
        before: folder of the untouched model.
        after: folder of the tuned one.
        **gate: any key of the recipe's `gate` block, such as `harm=3`.

    Returns:
        The comparison: `outcome`, `reasons`, and every cell with its paired interval.

    Raises:
        DataError: not an evaluation folder.
        IncomparableError: the two differ in more than the model.
    """
    settings = build_recipe({**_NO_RUN, "gate": gate}).gate
    return read_and_compare(Path(before), Path(after), settings)
