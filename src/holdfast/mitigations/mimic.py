"""Mitigation `mimic`: safety rows inside the user's own wrapper (P4, arXiv 2406.10288).

A wrapper that teaches obedience separates task rows from ordinary safety rows, and the model keeps
both lessons apart. Rows that wear the same wrapper leave it nothing to separate by. The wrapper is
induced from the user's rows, so no attack need be known beforehand.

Three modes: `wrapper` puts the request into the wrapper as it is; `option` makes it the stem of one
of the user's multiple-choice questions; `llm` has a model reword it first (`stages/restyle.py`).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from holdfast.formats import Format
from holdfast.mitigations import MITIGATIONS, Mitigation, PlanContext, Request
from holdfast.mitigations.safety_mix import safety_rows
from holdfast.types import Conversation, Message

Shape = Callable[[Conversation, random.Random], Conversation]

_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_REFUSES = re.compile(
    r"\b(?:can't|cannot|can not|won't|will not|unable|not able|refuse|decline|must not|not going)\b"
)


def in_format(formats: Sequence[Format]) -> Shape:
    """A function that puts a row's request into one of the formats, in proportion to their use."""

    def shape(row: Conversation, rng: random.Random) -> Conversation:
        worn = _one_of(formats, rng)
        turns = (*formats[worn].wrap(row.request), row.of_role("assistant")[-1])
        return replace(row, messages=turns, tags={**row.tags, "format": str(worn)})

    return shape


def mimicking(context: PlanContext) -> Shape:
    """As `in_format`, with the reply in the style of the users' answers, in the recipe's mode."""

    def shape(row: Conversation, rng: random.Random) -> Conversation:
        number = _one_of(context.formats, rng)
        worn = context.formats[number]
        questions = context.donors[number] if number < len(context.donors) else ()
        if context.mimic.mode == "option" and worn.between and questions:
            asked = worn.fill((row.request, *rng.choice(questions)[1:]))
        else:
            asked = worn.wrap(row.request)
        reply = in_answer_style(row.of_role("assistant")[-1], worn)
        return replace(row, messages=(*asked, reply), tags={**row.tags, "format": str(number)})

    return shape


def in_answer_style(reply: Message, worn: Format) -> Message:
    """A refusal as long as the users' answers allow, behind the label that opens them, if one does.

    Only whole sentences are left out, and never the refusal. An opening that is no label (`Yes,
    here you are`) is not repeated: it would agree to what is refused.
    """
    text = reply.content
    first, *rest = _SENTENCE.split(text)
    if worn.answer_words is not None and _REFUSES.search(first.lower().replace("’", "'")):
        room = worn.answer_words[2] - len(first.split())
        while rest and sum(len(sentence.split()) for sentence in rest) > room:
            rest.pop()
        text = " ".join([first, *rest]) if len(rest) + 1 < len(_SENTENCE.split(text)) else text
    if worn.answer_prefix.endswith(":"):
        text = f"{worn.answer_prefix} {text}"
    return reply if text == reply.content else Message.of(reply.role, text)


def _one_of(formats: Sequence[Format], rng: random.Random) -> int:
    return rng.choices(range(len(formats)), [f.rows for f in formats])[0]


def mimicking_rows(context: PlanContext) -> list[Request]:
    """Safety rows in the users' formats; plain ones where the rows share no format."""
    if not context.formats:
        return safety_rows(context)
    return [Request(source="mimic", pool="safety", shape=mimicking(context), **context.dose)]


@MITIGATIONS.register("mimic")
def mimic() -> Mitigation:
    """Safety demonstrations inside the wrapper that the user's own rows share (P4)."""
    return Mitigation("mimic", data=mimicking_rows)
