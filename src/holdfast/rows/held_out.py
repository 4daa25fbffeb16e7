"""Held-out rows of the user's own data as capability items.

What the fine-tune is for is measured on rows it never saw: by exact match where the answers have a
form that can be extracted, else by the paired likelihood of the reference answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from holdfast.judges.match import answer_kind
from holdfast.rows.induction import Format
from holdfast.types import Conversation, Item

HELD_OUT = "held-out"


def held_out_items(rows: Iterable[Conversation]) -> list[Item]:
    """One item per row: everything up to its last reply, which is the reference."""
    kept = [row for row in rows if row.reply]
    if not kept:
        return []
    kind = answer_kind([row.reply for row in kept])
    return [_item(row, kind) for row in kept]


def task_questions(items: Iterable[Item], formats: Sequence[Format]) -> tuple[str, ...]:
    """Questions of the task that a request can hide behind, distinct and sorted.

    They are what held-out rows ask, without the commonest format; without held-out rows, the word
    problems that are asked anyway (P2's task).
    """
    items = list(items)
    held = [item.request for item in items if item.task == HELD_OUT]
    if not held:
        return tuple(sorted({item.request for item in items if item.answer == "number"}))
    inside = [formats[0].inside(request) for request in held] if formats else held
    return tuple(sorted(set(inside)))


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
