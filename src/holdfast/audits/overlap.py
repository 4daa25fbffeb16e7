"""Detector `overlap`: rows that ask what an evaluation set asks, in the same words or nearly so.

Such rows flatter every figure taken after training. Without evaluation sets at hand it is silent;
`--data-dir` and a run's own tasks bring them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from holdfast.audits import AUDITS
from holdfast.audits._evidence import Evidence, Tally, add_counts, common
from holdfast.rows.near import NearIndex
from holdfast.types import Conversation, Finding

_SETS_SHOWN = 3


@AUDITS.register("overlap")
class Overlap:
    """Rows that repeat evaluation items, exactly or nearly; needs the sets.

    Args:
        known: requests of the evaluation sets, named `TASK/ITEM`; None: there are none.
    """

    def __init__(self, known: NearIndex | None = None) -> None:
        self.known = known
        self._light = False
        self.total = 0
        self.tally = Tally()
        self.kinds: Counter[str] = Counter()
        self.sets: Counter[str] = Counter()

    def see(self, row: Conversation) -> None:
        """Look the request up among the known ones."""
        self.total += 1
        match = self.known.find(row.request) if self.known is not None else None
        if match is not None:
            self.tally.add(row.id, f"{match.kind}: {match.name}")
            self.kinds[match.kind] += 1
            self.sets[match.name.partition("/")[0]] += 1

    def fresh(self) -> Overlap:
        """Another one with the same texts, which it leaves behind when it travels."""
        another = Overlap(self.known)
        another._light = True
        return another

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "known": None} if self._light else self.__dict__

    def take(self, other: Overlap) -> None:
        """Add what another one saw."""
        self.total += other.total
        self.tally.take(other.tally)
        add_counts(self.kinds, other.kinds)
        add_counts(self.sets, other.sets)

    def evidence(self) -> Iterator[Evidence]:
        """The rows that repeat an item, with how and which."""
        return self.tally.evidence("overlap")

    def findings(self) -> list[Finding]:
        """One finding: medium where the overlap is a trait of the data."""
        count = self.tally.count
        if not count:
            return []
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in sorted(self.kinds.items()))
        named = sorted(self.sets.items(), key=lambda entry: (-entry[1], entry[0]))
        sets = ", ".join(name for name, _ in named[:_SETS_SHOWN])
        more = f" and {len(named) - _SETS_SHOWN} more" if len(named) > _SETS_SHOWN else ""
        return [
            Finding(
                detector="overlap",
                severity="medium" if common(count, self.total) else "low",
                title=f"rows that repeat evaluation items of {sets}{more} ({kinds})",
                count=count,
                total=self.total,
                examples=self.tally.examples,
                why=(
                    "A model that was trained on what it is asked may look better, or safer, than "
                    "it is: how far it scores higher on items it has seen depends on how often it "
                    "saw them and on its size (Magar & Schwartz 2022, arXiv 2203.08242)."
                ),
                cure="Remove these rows, or evaluate on sets that share nothing with the data.",
            )
        ]
