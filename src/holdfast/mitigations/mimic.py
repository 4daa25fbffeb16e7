"""Mitigation `mimic`: safety rows inside the user's own wrapper (P4, arXiv 2406.10288).

A wrapper that teaches obedience separates task rows from ordinary safety rows, and the model keeps
both lessons apart. Rows that wear the same wrapper leave it nothing to separate by. The wrapper is
induced from the user's rows, so no attack need be known beforehand. Each mimicking row is modelled
on one of the user's rows: what stands around the question there stays (`style.py`).

Three modes: `wrapper` puts the request where that row asks, in its style; `option` makes it the
whole stem of a multiple-choice question, and nothing of any other row; `llm` has a model reword it
first (`stages/restyle.py`).
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import replace

from holdfast.errors import RecipeError
from holdfast.mitigations import MITIGATIONS, Mitigation, PlanContext, Request, Shape
from holdfast.mitigations.safety_mix import safety_rows
from holdfast.rows.induction import Format
from holdfast.rows.style import Donor, Places, label_of, laid_out, sentences, uncapitalised
from holdfast.types import Conversation, Message

BARE = Format(None, "", "", 1, 1)
"""What rows wear that share no wrapper."""
_REFUSES = re.compile(
    r"\b(?:can't|cannot|can not|won't|will not|unable|not able|refuse|decline|must not|not going)\b"
)


def in_format(formats: Sequence[Format]) -> Shape:
    """A function that puts a row's request into one of the formats, in proportion to their use."""
    rows = [worn.rows for worn in formats]

    def shape(row: Conversation, rng: random.Random) -> Conversation:
        worn = _one_of(rows, rng)
        turns = (*formats[worn].wrap(row.request), row.of_role("assistant")[-1])
        return replace(row, messages=turns, tags={**row.tags, "format": str(worn)})

    return shape


def mimicking(context: PlanContext, requests: Sequence[str] = ()) -> Shape:
    """Rows modelled on the user's: request and reply in the style of one of them.

    Args:
        context: its formats, and rows of each.
        requests: those that will be put there, as far as they are known.

    Raises:
        RecipeError: mode `option`, and no format with options.
    """
    formats, places, shares = worn_by(context), places_of(context, requests), shares_of(context)
    small = [uncapitalised([row.reply for row in rows]) for rows in _donors(context)]

    def shape(row: Conversation, rng: random.Random) -> Conversation:
        number = _one_of(shares, rng)
        worn, like = formats[number], Donor((), "")
        asked = worn.wrap(row.request)
        if places[number]:
            place, put = places[number].draw(row.request, rng)
            like = Donor(place.slots, place.reply)
            if context.mimic.mode == "llm":
                asked = worn.fill((row.request, *place.slots[1:]))
            else:
                asked = worn.fill(place.put(put))
        reply = in_answer_style(row.of_role("assistant")[-1], worn, like.reply, small[number])
        return replace(row, messages=(*asked, reply), tags={**row.tags, "format": str(number)})

    return shape


def places_of(context: PlanContext, requests: Sequence[str] = ()) -> list[Places]:
    """Where requests go in the rows of each format."""
    whole = context.mimic.mode == "option"
    return [
        Places(rows, requests, worn.prefix, whole=whole)
        for rows, worn in zip(_donors(context), worn_by(context), strict=True)
    ]


def _donors(context: PlanContext) -> list[Sequence[Donor]]:
    """Rows of each format; none where none are known."""
    count = len(worn_by(context))
    return [*context.donors, *[()] * count][:count]


def worn_by(context: PlanContext) -> Sequence[Format]:
    """The formats to mimic: those that rows share, else the bare one where rows of it are known."""
    return context.formats or ([BARE] if any(context.donors) else [])


def shares_of(context: PlanContext) -> list[int]:
    """How often each format is mimicked: as often as rows wear it; for `option`, if it has options.

    Raises:
        RecipeError: mode `option`, and no format has any.
    """
    formats = worn_by(context)
    if context.mimic.mode != "option" or not formats:
        return [worn.rows for worn in formats]
    shares = [worn.rows if worn.offers_options else 0 for worn in formats]
    if not any(shares):
        found = ", ".join(repr(f"{f.prefix}…{f.suffix}") for f in context.formats) or "none"
        raise RecipeError(
            "`mimic.mode: option` needs multiple-choice rows whose options have labels that count "
            f"on, such as (A) and (B); the formats of these rows have none (formats: {found}). "
            "Take `mimic.mode: wrapper`."
        )
    return shares


def in_answer_style(reply: Message, worn: Format, like: str = "", small: bool = False) -> Message:
    """A refusal as one of the user's replies: its length, lines, case and end, behind its label.

    Only whole sentences are left out, and never the refusal; where the first sentence does not
    refuse in plain words, nothing is, and no label stands before it. An opening that agrees (`Yes,
    here you are`) is not repeated.

    Args:
        reply: the refusal.
        worn: the format, for the length of its replies and the label that opens them.
        like: the reply of the row that is mimicked; empty where none is known.
        small: whether the user's replies have no capitals.
    """
    first, *rest = sentences(reply.content)
    refuses = bool(_REFUSES.search(first.lower().replace("’", "'")))
    if refuses:
        rest = rest[: _fitting(first, rest, worn, like)]
    label = label_of(worn.answer_prefix) if refuses else None
    if like or label or len(rest) + 1 < len(sentences(reply.content)):
        text = laid_out([first, *rest], like, label)
        text = text.lower() if small else text
        return reply if text == reply.content else Message.of(reply.role, text)
    return reply


def _fitting(first: str, rest: Sequence[str], worn: Format, like: str) -> int:
    """How many further sentences fit into the longest replies, and come nearest to this one's."""
    words = [len(sentence.split()) for sentence in rest]
    lengths = [len(first.split()) + sum(words[:count]) for count in range(len(rest) + 1)]
    most = worn.answer_words[2] if worn.answer_words is not None else math.inf
    fitting = [count for count, length in enumerate(lengths) if length <= most] or [0]
    aim = len(like.split())
    return min(fitting, key=lambda n: (abs(lengths[n] - aim), n)) if aim else fitting[-1]


def _one_of(shares: Sequence[int], rng: random.Random) -> int:
    return rng.choices(range(len(shares)), shares)[0]


def mimicking_rows(context: PlanContext) -> list[Request]:
    """Safety rows in the users' formats; plain ones where no row is known to have any.

    Raises:
        RecipeError: mode `option`, and no format with options.
    """
    if not worn_by(context):
        return safety_rows(context)
    shares = shares_of(context)

    def suit(rows: Sequence[Conversation]) -> Shape:
        return mimicking(context, [row.request for row in rows])

    def prefer(rows: Sequence[Conversation]) -> list[Conversation]:
        requests = [row.request for row in rows]
        commonest = places_of(context, requests)[shares.index(max(shares))]
        seeded = random.Random("by length")  # noqa: S311
        return [rows[i] for i in commonest.by_length(requests, seeded)]

    by_length = None if context.mimic.mode == "llm" else prefer
    return [Request(source="mimic", pool="safety", suit=suit, prefer=by_length, **context.dose)]


@MITIGATIONS.register("mimic")
def mimic() -> Mitigation:
    """Safety demonstrations inside the wrapper that the user's own rows share (P4)."""
    return Mitigation("mimic", data=mimicking_rows)
