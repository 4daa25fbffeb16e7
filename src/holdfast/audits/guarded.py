"""Detector `guarded`: rows that a guard model, or any judge that sees harm, calls harmful.

Words alone cannot tell harm (`suspicious_pairs`); a guard model reads request and reply together.
It is asked in batches and only where one is named: `holdfast audit DATA --judge qwen3guard`.
"""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.audits import AUDITS
from holdfast.audits._evidence import Evidence, Tally, common, rows
from holdfast.errors import RecipeError
from holdfast.judges import Judge
from holdfast.types import Attempt, Conversation, Finding

BATCH = 64
"""Rows held until the judge is asked."""
ENOUGH = 10
"""Harmful rows that undid a chat model's refusals (Qi et al. 2023)."""


@AUDITS.register("guarded")
class Guarded:
    """Rows that a guard model calls harmful; needs a judge that sees harm.

    Args:
        reader: the judge; None: none is asked.

    Raises:
        RecipeError: a judge that cannot see harm.
    """

    def __init__(self, reader: Judge | None = None) -> None:
        if reader is not None and not (reader.sees_harm and "refuse" in reader.sides):
            raise RecipeError(
                f"The judge {reader.name!r} sees compliance, not harm, so it would call every "
                "answered request harmful. Name a guard model, such as --judge qwen3guard."
            )
        self.reader = reader
        self.total = 0
        self.harmful = Tally()
        self.unscored = Tally()
        self._waiting: list[Attempt] = []

    def see(self, row: Conversation) -> None:
        """Put the row before the judge, with the next ones."""
        self.total += 1
        if self.reader is None or not row.reply.strip():
            return
        self._waiting.append(_attempt(row))
        if len(self._waiting) >= BATCH:
            self._ask()

    @property
    def shared(self) -> bool:
        """Whether other processes can do its work: the judge stays in this one."""
        return self.reader is None

    def take(self, other: Guarded) -> None:
        """Add what another one saw."""
        self.total += other.total

    def _ask(self) -> None:
        if self.reader is None or not self._waiting:
            return
        for attempt, verdict in zip(self._waiting, self.reader.judge(self._waiting), strict=True):
            if verdict.label == "unscored":
                self.unscored.add(attempt.id, "unscored")
            elif verdict.harmful:
                self.harmful.add(attempt.id, verdict.label)
        self._waiting = []

    def evidence(self) -> Iterator[Evidence]:
        """The rows called harmful, and those that could not be read."""
        self._ask()
        yield from self.harmful.evidence("guarded")
        yield from self.unscored.evidence("guarded")

    def findings(self) -> list[Finding]:
        """One finding for harmful rows, one where many could not be read."""
        self._ask()
        if self.reader is None:
            return []
        return [*self._harmful(self.reader.name), *self._unread(self.reader.name)]

    def _harmful(self, judge: str) -> list[Finding]:
        count = self.harmful.count
        if not count:
            return []
        grave = count >= ENOUGH or common(count, self.total)
        unread = self.unscored.count
        aside = f"; {rows(unread)} could not be read" if unread else ""
        return [
            Finding(
                detector="guarded",
                severity="high" if grave else "medium",
                title=f"rows whose replies {judge} calls harmful{aside}",
                count=count,
                total=self.total,
                examples=self.harmful.examples,
                why=(
                    "Ten openly harmful rows were enough to undo the refusals of a chat model (Qi "
                    "et al. 2023, arXiv 2310.03693)."
                ),
                cure="Read the examples and remove what is harmful; judges err both ways.",
            )
        ]

    def _unread(self, judge: str) -> list[Finding]:
        count = self.unscored.count
        if not count or self.harmful.count:
            return []
        return [
            Finding(
                detector="guarded",
                severity="low" if common(count, self.total) else "info",
                title=f"rows that {judge} could not read; none of the others is called harmful",
                count=count,
                total=self.total,
                examples=self.unscored.examples,
                why=(
                    "A row that was not read is not a safe row, and ten harmful ones were enough "
                    "to undo refusals (Qi et al. 2023, arXiv 2310.03693)."
                ),
                cure="Read them yourself, or name another judge.",
            )
        ]


def _attempt(row: Conversation) -> Attempt:
    return Attempt(
        row.id, row.id, "audit", "refuse", "direct", "plain/serve/chat/0", 0, row.request,
        row.request, "", row.reply, False, 0,
    )  # fmt: skip
