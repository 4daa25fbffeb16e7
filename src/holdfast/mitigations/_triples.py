"""What the four mitigations on safety triples share: doses and shapes (P3, arXiv 2407.09121)."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from holdfast.errors import RecipeError
from holdfast.mitigations import PlanContext, Request
from holdfast.mitigations.mimic import in_format
from holdfast.rows.preference import pair_row
from holdfast.rows.triples import harmful_of, prefix_row, refusal_of, transition_row
from holdfast.types import Conversation

Dose = Mapping[str, Any]


def whole_dose(context: PlanContext) -> Dose:
    """The recipe's `triples:` dose."""
    return context.triples.amount()


def halves(dose: Dose) -> tuple[Dose, Dose]:
    """A dose for each of two kinds that amounts to `dose` together."""
    more: dict[str, Any] = {}
    less: dict[str, Any] = {}
    for name, value in dose.items():
        if isinstance(value, int):
            less[name] = value // 2
            more[name] = value - less[name]
        else:
            less[name] = more[name] = None if value is None else value / 2
    return more, less


def prefix_request(context: PlanContext, dose: Dose) -> Request:
    """Refusals after a harmful prefix, at a dose."""

    def shape(row: Conversation, rng: random.Random) -> Conversation:
        ends = context.token_ends
        if ends is None:
            raise RecipeError(
                "`triples.prefix.unit: tokens` needs the tokenizer that is trained with, and none "
                "is known here; take `words`."
            )
        return _worn(prefix_row(row, context.triples.prefix, ends, rng), context, rng)

    return Request("harmful_prefix", "triples", shape=shape, together=True, **dose)


def transition_request(context: PlanContext, dose: Dose) -> Request:
    """Harmful answers whose every position aims at the refusal, at a dose."""

    def shape(row: Conversation, rng: random.Random) -> Conversation:
        return _worn(transition_row(row), context, rng)

    return Request("transition", "triples", shape=shape, together=True, **dose)


def preference_request(context: PlanContext, dose: Dose) -> Request:
    """The refusal as the chosen answer and the harmful one as the rejected, at a dose."""

    def shape(row: Conversation, rng: random.Random) -> Conversation:
        return _worn(pair_row(row, refusal_of(row), harmful_of(row)), context, rng)

    return Request("preference", "triples", shape=shape, together=True, **dose)


def _worn(row: Conversation, context: PlanContext, rng: random.Random) -> Conversation:
    if context.formats and rng.random() < context.triples.wrapped:
        return in_format(context.formats)(row, rng)
    return row
