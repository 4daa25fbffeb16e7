"""Searches of an evaluation: carried out one by one, their records in `searches.jsonl`.

The record of a search is written before its attempt, so that an attempt on disk always has one. A
search that was cut off between the two is done again; `settle` drops what it left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from holdfast.engines import Decoding, Engine
from holdfast.errors import RecipeError
from holdfast.files import append_jsonl, drop_torn_line, read_jsonl, write_jsonl
from holdfast.judges import Judge, judge
from holdfast.measuring.searching import Search, carry_out
from holdfast.stages.judge import judge_batch
from holdfast.types import Attempt, Verdict

FILE = "searches.jsonl"


class Searcher:
    """Carries out the searches of one evaluation folder."""

    def __init__(self, output: Path, judges: Mapping[str, Sequence[str]], rank: int = 0) -> None:
        """Bind a folder.

        Args:
            output: the evaluation folder.
            judges: task → judges; the first that can read its answers guides the searches.
            rank: of this process among those that share the searches, each into its own file.
        """
        self._output = output
        self._path = output / (f"{rank}-{FILE}" if rank else FILE)
        self._judges = judges
        self._reader = cache(judge)
        if self._path.exists():
            drop_torn_line(self._path)

    def find(self, engine: Engine, search: Search, attempt: Attempt, decoding: Decoding) -> Attempt:
        """The attempt with the best answer of its search.

        Raises:
            RecipeError: no judge of the task can guide the search.
        """
        reader = self._guide(attempt)

        def judging(attempts: Sequence[Attempt]) -> list[Verdict]:
            return judge_batch(reader, attempts)

        found, record = carry_out(search, engine, attempt, judging, decoding)
        append_jsonl(self._path, [record])
        return found

    def settle(self, attempts: Sequence[str]) -> None:
        """Keep one record for each of the attempts, in their order and in one file."""
        files = sorted(self._output.glob(f"*{FILE}"))
        if not files:
            return
        kept: dict[str, Any] = {row["attempt"]: row for f in files for row in read_jsonl(f)}
        write_jsonl(self._output / FILE, [kept[name] for name in attempts if name in kept])
        for file in files:
            if file.name != FILE:
                file.unlink()

    def _guide(self, attempt: Attempt) -> Judge:
        for name in self._judges.get(attempt.task, ()):
            if attempt.expects in self._reader(name).sides:
                return self._reader(name)
        raise RecipeError(
            f"The attack {attempt.attack!r} is guided by a judge, and no judge of "
            f"{attempt.task!r} reads answers to requests that are to be refused. Name one."
        )
