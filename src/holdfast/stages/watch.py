"""Watch: stop asking a cell's items once its answers decide it, at the gate's own error rates.

After every round the new answers are judged and each cell's paired changes are held against its
side's budget by e-values (`sequential.py`), which stay valid however often one looks. A cell is
closed when it holds, or when it is broken even after Bonferroni's correction over all gating tests;
both are read from this cell's answers alone, so no other cell's luck decides when it stops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.measuring import gate as gates
from holdfast.measuring.evaluation import CellKey, Evaluation, bad_outcome
from holdfast.measuring.gate import Cell
from holdfast.recipe import GateSettings
from holdfast.stages.compare import cell_of, paired_cells, stops_early
from holdfast.stages.judge import judge_attempts
from holdfast.types import Attempt

LOOK = 20
"""Items of every task between two looks."""


@dataclass(frozen=True, slots=True)
class Against:
    """What an evaluation is to be compared with, so that it can stop when that is decided."""

    before: Evaluation
    """The untouched model's, whole."""
    gate: GateSettings
    serving: str = "serve"
    """The prompting that users meet."""

    def settings(self, seed: int) -> dict[str, Any]:
        """What is recorded beside the answers."""
        return {"look": LOOK, "seed": seed, "gate": self.gate.model_dump()}


class GateWatch:
    """Closes cells that the gate can decide."""

    def __init__(self, against: Against, judges_of: Mapping[str, Sequence[str]]) -> None:
        """Start with every cell open.

        Args:
            against: the earlier evaluation and the gate.
            judges_of: task → judges; the first, which gates, is asked at every look.
        """
        self._against = against
        self._judges_of = {task: names[:1] for task, names in judges_of.items()}
        whole = list(paired_cells(against.before, against.before, against.gate, against.serving))
        self._refusal = gates.refusal_before(whole)
        self._tests = gates.tests_of(whole, against.gate)
        self._planned = {(c.task, c.attack, c.surface): len(c.before) for c in whole}
        self._new: list[Attempt] = []
        self._pairs: dict[CellKey, list[tuple[float | None, float | None]]] = {}
        self._first: dict[CellKey, Attempt] = {}
        self._closed: frozenset[CellKey] = frozenset()

    @property
    def closed(self) -> frozenset[CellKey]:
        """Cells whose items are asked no more."""
        return self._closed

    def see(self, attempts: Sequence[Attempt]) -> None:
        """Take in answers, in the order they were given."""
        self._new += attempts

    def look(self) -> None:
        """Judge what is new, and close the cells that are decided."""
        touched = self._read()
        self._closed |= {key for key in touched if self._decided(key)}

    def _read(self) -> set[CellKey]:
        verdicts = {v.attempt: v for v in judge_attempts(self._new, self._judges_of)}
        before, touched = self._against.before, set()
        for attempt in self._new:
            earlier = before.attempts.get(attempt.id)
            if earlier is None or not stops_early(attempt):
                continue  # nothing to compare it with, or to be asked whole: the cell stays open
            key = (attempt.task, attempt.attack, attempt.surface)
            found = verdicts.get(attempt.id)
            after = None if found is None else bad_outcome(attempt.expects, found)
            pair = (bad_outcome(earlier.expects, before.verdict(earlier)), after)
            self._pairs.setdefault(key, []).append(pair)
            self._first.setdefault(key, attempt)
            touched.add(key)
        self._new = []
        return touched

    def _decided(self, key: CellKey) -> bool:
        gate, serving = self._against.gate, self._against.serving
        pairs = self._pairs[key]
        cell: Cell = cell_of(
            self._first[key],
            gate,
            serving,
            event="",
            before=[b for b, _ in pairs],
            after=[a for _, a in pairs],
            planned=self._planned[key],
        )
        return gates.decided(cell, gate, tests=self._tests, refusal=self._refusal)
