"""Safety triples (P3, arXiv 2407.09121): request, refusal and harmful answer, made into rows.

| row | reply, with its loss |
|---|---|
| as read | harmful answer (none) · refusal (mle) |
| harmful prefix | first k units of the harmful answer (none) · refusal (mle) |
| transition (RTO) | harmful answer (transition) |

Sets that keep safe and unsafe answers in rows of their own are joined by what they ask.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from holdfast.recipe import PrefixSettings
from holdfast.text import normalise
from holdfast.types import Conversation, Dropped, Message, Segment

TokenEnds = Callable[[str], Sequence[int]]
"""Text → the character at which each of its tokens ends."""

LICENCES = {
    "PKU-Alignment/PKU-SafeRLHF": "CC-BY-NC-4.0",
    "PKU-Alignment/BeaverTails": "CC-BY-NC-4.0",
}
"""Hub sets with safe and unsafe answers, by id."""
DEFAULT_REFUSAL = "Sorry"

_WORD = re.compile(r"\S+")
_OPENING = re.compile(r"\w+")


def token_ends(tokenizer: Any) -> TokenEnds:
    """How a fast tokenizer cuts a text."""

    def ends(text: str) -> list[int]:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return [end for _, end in encoded["offset_mapping"]]

    return ends


def word_ends(text: str) -> list[int]:
    """The character at which each word of a text ends."""
    return [word.end() for word in _WORD.finditer(text)]


# --- what is in a row -----------------------------------------------------------------------------


def harmful_of(row: Conversation) -> str:
    """The harmful answer of a triple."""
    return row.of_role("assistant")[-1].segments[0].text.strip()


def refusal_of(row: Conversation) -> str:
    """The refusal of a triple, without the gap before it."""
    return row.of_role("assistant")[-1].segments[-1].text.strip()


def is_triple(row: Conversation) -> bool:
    """Whether the last reply is a harmful answer without loss, then a refusal with it."""
    replies = row.of_role("assistant")
    losses = [segment.loss for segment in replies[-1].segments] if replies else []
    return losses == ["none", "mle"] and bool(harmful_of(row)) and bool(refusal_of(row))


def as_refusal(row: Conversation) -> Conversation:
    """The request with its refusal alone: what a judge of refusals reads."""
    return _with_reply(row, [Segment(refusal_of(row), "mle")])


def join_triples(
    rows: Iterable[Conversation], drop: Callable[[Dropped], None]
) -> Iterator[Conversation]:
    """Triples as they are; safe and unsafe answers to one request joined into a triple.

    An unsafe answer is a reply with transition loss, as P3's files mark it; a safe one ends in a
    segment with `mle`. The first of each is taken, and a request with only one of them is set aside
    with its reason.
    """
    harmful: dict[str, Conversation] = {}
    safe: dict[str, str] = {}
    for row in rows:
        reply = row.of_role("assistant")[-1] if row.reply else None
        if reply is None:
            drop(Dropped(row.id, row.source, "no reply"))
        elif _is_whole_triple(row):
            yield row
        elif reply.segments[-1].loss == "transition":
            harmful.setdefault(normalise(row.request), row)
        else:
            safe.setdefault(normalise(row.request), reply.segments[-1].text.strip())
    for request, row in harmful.items():
        if request in safe:
            answer = row.of_role("assistant")[-1].segments[-1].text.strip()
            pieces = [Segment(answer, "none"), Segment(f" {safe[request]}", "mle")]
            yield _with_reply(row, pieces)
        else:
            drop(Dropped(row.id, row.source, "no refusal of this request"))
    if alone := len(safe.keys() - harmful.keys()):
        drop(Dropped("-", "triples", f"no harmful answer to the request ({alone:,} rows)"))


def _is_whole_triple(row: Conversation) -> bool:
    return is_triple(row) and row.tags.get("format") != "prefix/text/safe"


# --- what is made of it ---------------------------------------------------------------------------


def prefix_length(units: int, settings: PrefixSettings, rng: random.Random) -> int:
    """A prefix length k for an answer of `units` tokens or words, 0 <= k <= units."""
    none, drawn = rng.random() < settings.zero, rng.random()
    most = max(0, units - settings.spare) if settings.high is None else settings.high
    if none or most < settings.low:
        return 0
    k = settings.low + int(drawn * (most - settings.low + 1))
    return min(k, units)


def prefix_row(
    row: Conversation, settings: PrefixSettings, ends: TokenEnds, rng: random.Random
) -> Conversation:
    """The refusal after the first k units of the harmful answer, which carry no loss.

    Without a prefix (k = 0) it is a vanilla safety row, character for character.
    """
    harmful, refusal = harmful_of(row), refusal_of(row)
    places = ends(harmful) if settings.unit == "tokens" else word_ends(harmful)
    k = prefix_length(len(places), settings, rng)
    begun = harmful[: places[k - 1]].rstrip() if k else ""
    # One space belongs to the refusal: the model has to learn to break off, not where to.
    pieces = [Segment(begun, "none"), Segment(f" {refusal}", "mle")] if begun else None
    made = _with_reply(row, pieces or [Segment(refusal, "mle")])
    return replace(made, tags={**row.tags, "prefix": f"{k} {settings.unit}"})


def transition_row(row: Conversation) -> Conversation:
    """The harmful answer, every position of which aims at the refusal (RTO)."""
    return _with_reply(row, [Segment(harmful_of(row), "transition")])


def opening_word(rows: Iterable[Conversation]) -> tuple[str, float]:
    """The word that opens most of the refusals of some triples, and the share that it opens."""
    found = (_OPENING.match(refusal_of(row)) for row in rows)
    words = Counter(match.group() for match in found if match)
    if not words:
        return DEFAULT_REFUSAL, 0.0
    word, times = min(words.items(), key=lambda item: (-item[1], item[0]))
    return word, times / words.total()


def _with_reply(row: Conversation, pieces: Sequence[Segment]) -> Conversation:
    *earlier, last = row.messages
    return replace(row, messages=(*earlier, Message(last.role, tuple(pieces), last.extra)))
