"""Detector `duplicates`: rows that say what another row says, but for case and spacing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from holdfast.audits import AUDITS
from holdfast.audits._evidence import EXAMPLES, Evidence, common, fold, hash64
from holdfast.audits._spill import RowIds, Spill
from holdfast.types import Conversation, Finding


@AUDITS.register("duplicates")
class Duplicates:
    """Rows whose request and reply repeat another row's, after normalisation."""

    def __init__(self) -> None:
        self._keys = Spill()
        self._ids = RowIds()

    def see(self, row: Conversation) -> None:
        """Keep the row's hash and its id, on disk."""
        key = hash64(f"{fold(row.system or '')}\0{fold(row.request)}\0{fold(row.reply)}")
        self._keys.write(key.to_bytes(8, "little"))
        self._ids.add(row.id)

    def take(self, other: Duplicates) -> None:
        """Add the rows that another one saw."""
        self._keys.take(other._keys)
        self._ids.take(other._ids)

    def findings(self) -> list[Finding]:
        """One finding: how many rows could go without losing anything."""
        total = len(self._ids)
        keys = self._keys.view("<u8")
        repeated, extra = _repeated(keys)
        if not extra:
            return []
        return [
            Finding(
                detector="duplicates",
                severity="low" if common(extra, total) else "info",
                title=f"repeated rows ({len(repeated):,} said more than once)",
                count=extra,
                total=total,
                examples=self._examples(keys, repeated),
                why=(
                    "Trained without repetitions, models gave memorised text ten times less often; "
                    "a copy that reaches training and a test set flatters the result (Lee et al. "
                    "2022, arXiv 2107.06499)."
                ),
                cure=(
                    "Keep one row of each group in the evidence file (`--output`), unless the "
                    "weight is wanted."
                ),
            )
        ]

    def evidence(self) -> Iterator[Evidence]:
        """All rows of every group, in the order they came."""
        keys = self._keys.view("<u8")
        repeated, _ = _repeated(keys)
        numbers = np.flatnonzero(np.isin(keys, repeated))
        groups = np.searchsorted(repeated, keys[numbers])
        for row_id, group in zip(self._ids.of(numbers), groups, strict=True):
            yield Evidence("duplicates", row_id, group=int(group))

    def _examples(self, keys: np.ndarray, repeated: np.ndarray) -> tuple[str, ...]:
        """Ids of the repeated rows with the smallest hashes, whole groups first."""
        found: list[str] = []
        for key in repeated[:EXAMPLES]:
            found += self._ids.smallest(np.flatnonzero(keys == key), EXAMPLES)
            if len(found) >= EXAMPLES:
                break
        return tuple(found[:EXAMPLES])


def _repeated(keys: np.ndarray) -> tuple[np.ndarray, int]:
    """The keys that come more than once, ascending; how many rows could go."""
    ranked = np.sort(keys)
    again = ranked[1:][ranked[1:] == ranked[:-1]]
    first = np.append(True, again[1:] != again[:-1])[: len(again)]
    return again[first], len(again)
