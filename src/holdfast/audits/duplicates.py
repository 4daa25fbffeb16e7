"""Detector `duplicates`: rows that say what another row says, but for case and spacing."""

from __future__ import annotations

import numpy as np

from holdfast.audits import AUDITS
from holdfast.audits._evidence import EXAMPLES, common, fold, hash64
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
        ranked = np.sort(keys)
        again = ranked[1:][ranked[1:] == ranked[:-1]]
        extra = len(again)
        repeated = np.unique(again)
        del ranked, again
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
                    "A repeated row counts several times in training and is learnt by heart; one "
                    "that reaches both training and a test set flatters the result."
                ),
                cure="Remove the copies, unless the weight is wanted.",
            )
        ]

    def _examples(self, keys: np.ndarray, repeated: np.ndarray) -> tuple[str, ...]:
        """Ids of the repeated rows with the smallest hashes, whole groups first."""
        found: list[str] = []
        for key in repeated[:EXAMPLES]:
            found += self._ids.smallest(np.flatnonzero(keys == key), EXAMPLES)
            if len(found) >= EXAMPLES:
                break
        return tuple(found[:EXAMPLES])
