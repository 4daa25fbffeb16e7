"""Material: the safety and look-alike rows a recipe asks for, found or named as missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from holdfast import sources
from holdfast.load import open_rows
from holdfast.pools import Pool, check_licence, clean_pool
from holdfast.setup import Setup
from holdfast.stages.prepare import Plan
from holdfast.suites import missing_material
from holdfast.text import normalise
from holdfast.types import Conversation, Item


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
    for dosed in plan.dosed:
        if dosed.rows:
            wanted[dosed.pool] = wanted.get(dosed.pool, 0) + dosed.rows
    return wanted


def origin_of(pool: str, setup: Setup) -> Origin:
    """What a pool is read from: for `source: self`, the requests to be answered."""
    recipe = setup.recipe
    if pool == "safety":
        named = recipe.safety.source
        ref = recipe.safety.requests if named == "self" else named
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
    return origin_of(pool, setup).source == "or-bench-80k"


def missing(setup: Setup, pools: Iterable[str]) -> list[str]:
    """One line for everything a run needs that is not at hand."""
    lines = missing_material(list(setup.asked.tasks), setup.context)
    for pool in pools:
        origin = origin_of(pool, setup)
        check_licence(origin.ref, origin.licence, setup.recipe.licence)
        if origin.source is not None:
            line = sources.missing(origin.source, setup.context.data_dir, setup.context.offline)
            lines += [f"{pool} rows: {line}"] if line else []
    return lines


def read_pool(
    pool: str,
    setup: Setup,
    items: Iterable[Item],
    answered: Callable[[str, list[Conversation]], list[Conversation]],
) -> Pool:
    """A pool's rows, clean, and answered by the untouched model where the recipe wants that.

    Args:
        pool: `safety` or `borderline`.
        setup: of the run.
        items: what evaluation will ask; rows that ask the same are set aside.
        answered: pool name and requests → rows with the untouched model's fit answers.
    """
    origin = origin_of(pool, setup)
    ref = origin.ref
    if origin.source is not None:
        data_dir = setup.context.data_dir
        ref = str(sources.require(origin.source, data_dir, setup.context.offline))
    by_model = answered_by_model(pool, setup)
    settings = setup.recipe.safety if pool == "safety" else setup.recipe.borderline
    asked = {normalise(item.request): item.task for item in items}
    rows = open_rows(ref, columns=settings.columns, source=pool, replies=not by_model)
    clean = clean_pool(pool, rows, asked.get)
    if by_model:
        clean.rows = answered(pool, clean.rows)
    clean.origin, clean.licence = origin.ref, origin.licence
    return clean
