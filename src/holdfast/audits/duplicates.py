"""Detector `duplicates`: rows that say what another row says, but for case and spacing."""

from __future__ import annotations

from array import array

import numpy as np

from holdfast.audits import AUDITS
from holdfast.audits._evidence import EXAMPLES, common, fold, hash64
from holdfast.types import Conversation, Finding

_ID_BYTES = 32
"""Of each row's id kept for examples: with the hash and an offset, 48 bytes a row at most."""


@AUDITS.register("duplicates")
class Duplicates:
    """Rows whose request and reply repeat another row's, after normalisation."""

    def __init__(self) -> None:
        self._keys = array("Q")
        self._ids = bytearray()
        self._ends = array("Q")

    def see(self, row: Conversation) -> None:
        """Keep the row's hash and its id."""
        self._keys.append(
            hash64(f"{fold(row.system or '')}\0{fold(row.request)}\0{fold(row.reply)}")
        )
        self._ids += row.id.encode("utf-8", "surrogatepass")[:_ID_BYTES]
        self._ends.append(len(self._ids))

    def findings(self) -> list[Finding]:
        """One finding: how many rows could go without losing anything."""
        total = len(self._keys)
        keys = np.array(self._keys, dtype=np.uint64)
        distinct, counts = np.unique(keys, return_counts=True)
        extra = total - len(distinct)
        if not extra:
            return []
        return [
            Finding(
                detector="duplicates",
                severity="low" if common(extra, total) else "info",
                title=f"repeated rows ({int((counts > 1).sum()):,} said more than once)",
                count=extra,
                total=total,
                examples=self._examples(keys, distinct[counts > 1]),
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
            numbers = np.flatnonzero(keys == key)
            found += sorted(self._id(int(number)) for number in numbers)
            if len(found) >= EXAMPLES:
                break
        return tuple(found[:EXAMPLES])

    def _id(self, number: int) -> str:
        start = self._ends[number - 1] if number else 0
        return self._ids[start : self._ends[number]].decode("utf-8", "replace")
