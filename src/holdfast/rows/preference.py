"""Preference pairs: two replies to one request, of which one is wanted.

A row carries both in one reply: the rejected answer (loss `rejected`), then the chosen one (`mle`).
Training on labels sees the chosen answer alone, a demonstration like any other; preference training
(DPO, arXiv 2305.18290) sees the two beside each other.
"""

from __future__ import annotations

from dataclasses import replace

from holdfast.types import Conversation, Loss, Message, Segment


def pair_row(row: Conversation, wanted: str, unwanted: str) -> Conversation:
    """A row whose last reply is a pair."""
    *earlier, last = row.messages
    pieces = (Segment(unwanted, "rejected"), Segment(f" {wanted}", "mle"))
    return replace(row, messages=(*earlier, Message(last.role, pieces, last.extra)))


def is_pair(row: Conversation) -> bool:
    """Whether the last turn holds a rejected and a chosen answer."""
    losses = {s.loss for s in row.messages[-1].segments} if row.messages else set()
    return {"rejected", "mle"} <= losses


def chosen(row: Conversation) -> Conversation:
    """The row without its rejected answers; a row that has none is returned as it is."""
    if not any(s.loss == "rejected" for m in row.messages for s in m.segments):
        return row
    return replace(row, messages=tuple(_without_rejected(m) for m in row.messages))


def both_sides(row: Conversation) -> tuple[Conversation, Conversation]:
    """(chosen, rejected): the same turns before a last reply, which alone is to be scored."""
    *earlier, last = row.messages
    before = [_unscored(_without_rejected(message)) for message in earlier]

    def side(loss: Loss) -> Conversation:
        text = "".join(s.text for s in last.segments if s.loss == loss).strip()
        return replace(row, messages=(*before, Message.of(last.role, text, "mle")))

    return side("mle"), side("rejected")


def _unscored(message: Message) -> Message:
    return replace(message, segments=(Segment(message.content, "none"),))


def _without_rejected(message: Message) -> Message:
    kept = [s for s in message.segments if s.loss != "rejected"]
    if len(kept) == len(message.segments):
        return message
    if kept:  # the gap after the rejected answer goes with it
        kept[0] = replace(kept[0], text=kept[0].text.lstrip())
    return Message(message.role, tuple(kept), message.extra)
