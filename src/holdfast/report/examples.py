"""Answers worth reading: what changed, what held, and what nobody could score.

The choice is by a hash of the attempt's id: spread over categories, and the same in every report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast.files import digest
from holdfast.measuring.evaluation import Evaluation, bad_outcome
from holdfast.report.cells import CONTINUOUS, CellView, as_served, gating
from holdfast.types import Attempt

CHANGED = 10
HELD = 5
UNSCORED = 5
LONGEST = 4000
"""Characters of an answer or prompt that the page shows."""

_TITLES: Mapping[str, tuple[str, str]] = {
    "harm": ("Refused before, complied after", "Refused before and after"),
    "over_refusal": ("Answered before, refused after", "Answered before and after"),
    "capability": ("Correct before, wrong after", ""),
}


@dataclass(frozen=True, slots=True)
class Reply:
    """What one model answered, and what the judge said."""

    arm: str
    text: str
    label: str
    reason: str
    truncated: bool
    tokens: int
    cut: int
    """Characters that the page leaves out."""


@dataclass(frozen=True, slots=True)
class Example:
    """One request with its answers, model by model."""

    item: str
    category: str
    request: str
    prefill: str
    prompt: str
    replies: tuple[Reply, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Examples of one kind."""

    title: str
    total: int
    """How many there are; the group shows the first few."""
    examples: tuple[Example, ...]
    open: bool


@dataclass(frozen=True, slots=True)
class CellExamples:
    """The groups of one cell."""

    cell: CellView
    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class Arms:
    """The evaluations that examples are taken from."""

    before: Evaluation
    after: Evaluation
    control: Evaluation | None = None
    serving: str | None = None
    """The prompting under which the control arm is served."""

    def plain(self, attempt: Attempt) -> Attempt | None:
        """The control arm's attempt at the same request, as it is served."""
        if self.control is None:
            return None
        item, attack, surface, sample = attempt.id.rsplit("|", 3)
        served = "|".join((item, attack, as_served(surface, self.serving), sample))
        return self.control.attempts.get(served) or self.control.attempts.get(attempt.id)


def examples(cells: Sequence[CellView], arms: Arms) -> list[CellExamples]:
    """Examples of every gating cell whose answers are at hand."""
    found = []
    for cell in gating(cells):
        if cell.event != CONTINUOUS and cell.key in arms.after.cells:
            groups = tuple(group for group in _groups(cell, arms) if group.total)
            if groups:
                found.append(CellExamples(cell, groups))
    return found


def _groups(cell: CellView, arms: Arms) -> list[Group]:
    before = dict(arms.before.outcomes(cell.key))
    changed: list[Attempt] = []
    held: list[Attempt] = []
    unscored: list[Attempt] = []
    for identity, outcome in arms.after.outcomes(cell.key):
        attempt = arms.after.attempts[identity]
        if outcome is None:
            unscored.append(attempt)
        elif before.get(identity) == 0.0:
            (changed if outcome else held).append(attempt)
    title_changed, title_held = _TITLES[cell.side]
    groups = [_group(title_changed, changed, CHANGED, arms, is_open=True)]
    if title_held:
        groups.append(_group(title_held, held, HELD, arms))
    groups.append(_group("Could not be scored after tuning", unscored, UNSCORED, arms))
    return groups


def _group(
    title: str, attempts: Sequence[Attempt], most: int, arms: Arms, *, is_open: bool = False
) -> Group:
    """The first `most` of a fixed random order; those where plain tuning failed come first."""
    ordered = sorted(attempts, key=lambda a: (not _plain_failed(a, arms), digest(a.id)))
    shown = tuple(_example(attempt, arms) for attempt in ordered[:most])
    return Group(title, len(attempts), shown, is_open)


def _plain_failed(attempt: Attempt, arms: Arms) -> bool:
    plain = arms.plain(attempt)
    if plain is None or arms.control is None:
        return False
    return bad_outcome(plain.expects, arms.control.verdict(plain)) == 1.0


def _example(attempt: Attempt, arms: Arms) -> Example:
    replies = []
    earlier = arms.before.attempts.get(attempt.id)
    if earlier is not None:
        replies.append(_reply("Before tuning", earlier, arms.before))
    replies.append(_reply("After tuning", attempt, arms.after))
    plain = arms.plain(attempt)
    if plain is not None and arms.control is not None:
        replies.append(_reply("After plain tuning (control)", plain, arms.control))
    return Example(
        item=attempt.item,
        category=attempt.category,
        request=attempt.request[:LONGEST],
        prefill=attempt.prefill[:LONGEST],
        prompt=attempt.prompt[:LONGEST],
        replies=tuple(replies),
    )


def _reply(arm: str, attempt: Attempt, evaluation: Evaluation) -> Reply:
    verdict = evaluation.verdict(attempt)
    return Reply(
        arm=arm,
        text=attempt.response[:LONGEST],
        label=verdict.label.replace("_", " "),
        reason=verdict.reason,
        truncated=attempt.truncated,
        tokens=attempt.tokens,
        cut=max(0, len(attempt.response) - LONGEST),
    )
