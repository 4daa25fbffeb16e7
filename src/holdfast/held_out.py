"""Held-out rows of the user's own data as capability items.

What the fine-tune is for is measured on rows it never saw: by exact match where the answers have a
form that can be extracted, else by the paired likelihood of the reference answer.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.judges.match import answer_kind
from holdfast.types import Conversation, Item

HELD_OUT = "held-out"


def held_out_items(rows: Iterable[Conversation]) -> list[Item]:
    """One item per row: everything up to its last reply, which is the reference."""
    kept = [row for row in rows if row.reply]
    if not kept:
        return []
    kind = answer_kind([row.reply for row in kept])
    return [_item(row, kind) for row in kept]


def _item(row: Conversation, kind: str) -> Item:
    last = max(i for i, m in enumerate(row.messages) if m.role == "assistant")
    return Item(
        id=row.id,
        task=HELD_OUT,
        messages=row.messages[:last],
        expects="answer",
        reference=row.messages[last].content,
        answer=kind,
    )
