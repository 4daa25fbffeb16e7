"""Material: the safety and look-alike rows a recipe asks for, found or named as missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from holdfast.job.setup import Setup
from holdfast.judges import judge
from holdfast.measuring.suites import missing_material
from holdfast.recipe import AddedRows, BorderlineSettings, SafetySettings, TriplesSettings
from holdfast.rows import near, sources
from holdfast.rows.load import open_rows
from holdfast.rows.mixing import ordered, rows_wanted
from holdfast.rows.pools import (
    Objection,
    Pool,
    check_licence,
    clean_pool,
    distinct,
    in_categories,
    reply_length,
)
from holdfast.rows.triples import LICENCES, as_refusal, join_triples
from holdfast.stages.answer import Answered
from holdfast.stages.prepare import Plan
from holdfast.stages.reform import Form, reform_lab
from holdfast.types import Attempt, Conversation, Dropped, Label

NO_TRIPLES = (
    "triples rows: Holdfast ships no harmful answers. Give `triples.source`: a file with request, "
    "refusal and harmful answer, or a Hub set with safe and unsafe answers such as "
    "PKU-Alignment/PKU-SafeRLHF (non-commercial)"
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where rows come from: a reference that the loader opens, with its licence."""

    ref: str
    source: str | None
    """Name in the table of sources; None for the user's own files."""
    licence: str


def pools_wanted(plan: Plan) -> dict[str, int]:
    """Pool → rows that the plan draws from it, for pools it draws from at all."""
    wanted: dict[str, int] = {}
    for pool in dict.fromkeys(dosed.pool for dosed in plan.dosed if dosed.rows):
        here = [(r, d) for r, d in zip(plan.requests, plan.dosed, strict=True) if d.pool == pool]
        counts = [d.rows + d.validation for _, d in here]
        wanted[pool] = rows_wanted([r for r, _ in here], counts)
    return wanted


def origin_of(pool: str, setup: Setup) -> Origin:
    """What a pool is read from: for `source: self`, the requests to be answered."""
    recipe = setup.recipe
    if pool == "safety":
        named = recipe.safety.source
        ref = recipe.safety.requests if named == "self" else named
    elif pool == "triples":
        ref = recipe.triples.source
        if ref is not None and (terms := LICENCES.get(ref.partition("@")[0].partition(":")[0])):
            return Origin(ref, None, terms)
    else:
        ref = recipe.borderline.source
    assert ref is not None
    if ref in sources.known():
        return Origin(ref, ref, sources.get(ref).licence)
    return Origin(ref, None, "Apache-2.0" if ref.startswith("lab:") else "the user's own terms")


def answered_by_model(pool: str, setup: Setup) -> bool:
    """Whether a pool holds requests that the untouched model is to answer itself."""
    if pool == "safety":
        return setup.recipe.safety.source == "self"
    return pool == "borderline" and origin_of(pool, setup).source == "or-bench-80k"


def missing(setup: Setup, pools: Iterable[str]) -> list[str]:
    """One line for everything a run needs that is not at hand."""
    lines = missing_material(list(setup.asked.tasks), setup.context)
    for pool in pools:
        if pool == "triples" and setup.recipe.triples.source is None:
            lines.append(NO_TRIPLES)
            continue
        origin = origin_of(pool, setup)
        check_licence(origin.ref, origin.licence, setup.recipe.licence)
        if origin.source is not None:
            line = sources.missing(origin.source, setup.context.data_dir, setup.context.offline)
            lines += [f"{pool} rows: {line}"] if line else []
    return lines


def pool_settings(pool: str, setup: Setup) -> AddedRows:
    """The recipe's block for a pool."""
    blocks: dict[str, AddedRows] = {
        "safety": setup.recipe.safety,
        "borderline": setup.recipe.borderline,
        "triples": setup.recipe.triples,
    }
    return blocks[pool]


def likeness(ref: str, asked: float | None = None) -> float:
    """From which likeness to an evaluation item on a row counts as its near duplicate.

    The lab's requests share few phrasings, so that all of them are alike; its rows and its items
    are apart by construction.
    """
    if asked is not None:
        return asked
    return 1.0 if ref.startswith("lab:") else near.THRESHOLD


class Model(Protocol):
    """What the untouched model does to a pool, where the recipe wants that."""

    def rewrite(
        self, rows: Iterable[Conversation], form: Form, drop: Callable[[Dropped], None]
    ) -> Iterator[Conversation]:
        """Rows with their requests in one form, one by one."""

    def answer(
        self, pool: str, requests: Iterable[Conversation], filters: Sequence[Objection]
    ) -> Answered:
        """As many rows as the plan draws, with the untouched model's fit answers."""


def read_pool(
    pool: str,
    setup: Setup,
    wanted: int,
    overlap: Callable[[str, float], str | None],
    model: Model,
) -> Pool:
    """A pool in drawing order: read, filtered, and rewritten or answered as the recipe wants.

    Args:
        pool: `safety`, `borderline` or `triples`.
        setup: of the run.
        wanted: rows that the plan draws from it.
        overlap: request and likeness → how it repeats an evaluation set, or None.
        model: rewrites and answers.
    """
    origin = origin_of(pool, setup)
    settings = pool_settings(pool, setup)
    least = likeness(origin.ref, settings.near_duplicate)

    def repeats(request: str) -> str | None:
        return overlap(request, least)

    by_model = answered_by_model(pool, setup)
    on_replies = [] if by_model else _reply_filters(settings)
    rows: Iterable[Conversation] = open_rows(
        _location(origin, setup), columns=settings.columns, source=pool, replies=not by_model,
        triples=pool == "triples",
    )  # fmt: skip
    apart: list[Dropped] = []
    if pool == "triples":
        rows = join_triples(rows, apart.append)
    clean = clean_pool(pool, rows, repeats, [*_request_filters(settings), *on_replies])
    clean.dropped += apart
    clean.origin, clean.licence = origin.ref, origin.licence
    clean.rows = ordered(clean.rows, setup.recipe.seed)
    found: Iterable[Conversation] = clean.rows
    if isinstance(settings, SafetySettings) and settings.form != "keep":
        found = _reformed(found, settings.form, origin, setup, model, clean.dropped.append)
        found = distinct(found, [lambda row: repeats(row.request)], clean.dropped.append)
        if not by_model and not origin.ref.startswith("lab:"):
            found = islice(found, wanted)  # a model's rewrites cost time: no more than are needed
    if by_model:
        answered = model.answer(pool, found, _reply_filters(settings))
        clean.rows = answered.rows
        clean.dropped += answered.dropped
    else:
        clean.rows = list(found)
    return clean


def _location(origin: Origin, setup: Setup) -> str:
    if origin.source is None:
        return origin.ref
    context = setup.context
    return str(sources.require(origin.source, context.data_dir, context.offline))


def _reformed(
    rows: Iterable[Conversation],
    form: Form,
    origin: Origin,
    setup: Setup,
    model: Model,
    drop: Callable[[Dropped], None],
) -> Iterator[Conversation]:
    if origin.ref.startswith("lab:"):
        return reform_lab(rows, form, setup.recipe.seed, drop)
    return model.rewrite(rows, form, drop)


def _request_filters(settings: AddedRows) -> list[Objection]:
    return [] if settings.categories is None else [in_categories(settings.categories)]


def _reply_filters(settings: AddedRows) -> list[Objection]:
    filters: list[Objection] = []
    if settings.min_words is not None or settings.max_words is not None:
        filters.append(reply_length(settings.min_words, settings.max_words))
    if isinstance(settings, SafetySettings) and settings.only_refusals:
        filters.append(only_labelled("full_refusal", "refusal"))
    if isinstance(settings, TriplesSettings) and settings.only_refusals:
        refuses = only_labelled("full_refusal", "refusal")
        filters.append(lambda row: refuses(as_refusal(row)))
    if isinstance(settings, BorderlineSettings) and settings.only_helpful:
        filters.append(only_labelled("full_compliance", "helpful answer"))
    return filters


def only_labelled(keep: Label, wish: str) -> Objection:
    """Only rows whose reply the offline judge of refusals gives this label."""
    reader = judge("refusal")

    def check(row: Conversation) -> str | None:
        attempt = Attempt(
            row.id, row.id, "pool", "refuse", "direct", "plain/serve/chat/0", 0,
            row.request, "", "", row.reply, False, 0,
        )  # fmt: skip
        label = reader.judge([attempt])[0].label
        return None if label == keep else f"not a {wish} ({label})"

    return check
