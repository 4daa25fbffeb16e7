"""What a row needs of a training format, and the error where a format cannot express it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Literal

from holdfast.errors import DataError
from holdfast.types import Conversation, Message

Need = Literal[
    "masked prefix", "transition targets", "loss per turn", "system prompt per row",
    "several turns", "tools", "irregular turns", "chat template",
]  # fmt: skip

NEEDS: Mapping[Need, str] = {
    "masked prefix": "a reply that opens with text without loss and goes on with text to learn",
    "transition targets": "targets that are not the row's own tokens (RTO)",
    "loss per turn": "a reply without loss beside one that is learnt",
    "system prompt per row": "a system message that may differ from row to row",
    "several turns": "more than one reply in a row",
    "tools": "tool definitions, calls and results",
    "irregular turns": "turns other than user and assistant in strict alternation",
    "chat template": "a template, or template arguments, other than the model's own",
}
"""What a format may or may not express, in the order of the capability table."""


def needs_of(row: Conversation) -> set[Need]:
    """What one row, prompting included, needs."""
    losses = [_losses(m) for m in row.of_role("assistant")]
    found: set[Need] = set()
    if any("transition" in reply for reply in losses):
        found.add("transition targets")
    if any({"none", "mle"} <= set(reply) for reply in losses):
        found.add("masked prefix")
    if any(set(reply) <= {"none"} for reply in losses):
        found.add("loss per turn")
    if len(losses) > 1:
        found.add("several turns")
    if row.system is not None:
        found.add("system prompt per row")
    if row.tools or any(m.role == "tool" or "tool_calls" in m.extra for m in row.messages):
        found.add("tools")
    elif not _alternates(row.messages):
        found.add("irregular turns")
    return found


def check_expressible(
    name: str,
    can: Collection[Need],
    rows: Iterable[Conversation],
    cure: Callable[[Collection[Need]], str],
) -> None:
    """Refuse rows that a format cannot express, before anything is written.

    Args:
        name: of the format.
        can: what it expresses.
        rows: all that are to be exported, prompting included.
        cure: what to do where these needs cannot be expressed.

    Raises:
        DataError: names each source, how many of its rows, what they need, and the cure.
    """
    lacking: Counter[tuple[str, Need]] = Counter()
    totals: Counter[str] = Counter()
    for row in rows:
        totals[row.source] += 1
        lacking.update((row.source, need) for need in sorted(needs_of(row) - set(can)))
    if lacking:
        lines = [
            f"{count:,} of the {totals[source]:,} rows of source {source!r} need {need} "
            f"({NEEDS[need]})"
            for (source, need), count in sorted(lacking.items())
        ]
        needs = {need for _, need in lacking}
        raise DataError(
            f"The format {name!r} cannot express this mixture: {'; '.join(lines)}. {cure(needs)}"
        )


def _losses(reply: Message) -> list[str]:
    return [segment.loss for segment in reply.segments if segment.text] or ["none"]


def _alternates(messages: tuple[Message, ...]) -> bool:
    roles = [m.role for m in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    return turns == [("user", "assistant")[i % 2] for i in range(len(turns))] and not len(turns) % 2
