"""What asking a served model costs: counted over all sessions, held to a budget, kept on disk.

    allow the next requests? → ask → record → usage.json, beside the answers

The file stands outside what is compared: retries and prices are no property of a model.
"""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from holdfast.endpoint import Usage
from holdfast.errors import DataError, ModelError
from holdfast.files import make_folder, read_object, write_json
from holdfast.recipe import SpendingSettings

FILE = "usage.json"
"""Name of the file in an evaluation folder."""


class BudgetError(ModelError):
    """The next requests could cost more than the recipe allows."""


class Meter:
    """Counts what one evaluation asks of a server, in this session and the ones before."""

    def __init__(self, folder: Path, budget: SpendingSettings, used: Usage) -> None:
        """Go on counting from what the folder has on record.

        Args:
            folder: the evaluation folder.
            budget: what may be asked in all, and prices.
            used: the client's own running count; what it has counted so far is not this
                evaluation's.

        Raises:
            DataError: the folder's record cannot be read.
        """
        self.folder = folder
        self.budget = budget
        self._used = used
        self._start = replace(used)
        self._before = read_usage(folder) or Usage()

    @property
    def total(self) -> Usage:
        """What the evaluation has asked for in all sessions."""
        return Usage(
            **{
                f.name: getattr(self._before, f.name)
                + getattr(self._used, f.name)
                - getattr(self._start, f.name)
                for f in fields(Usage)
            }
        )

    def allow(self, requests: int, tokens: int) -> None:
        """Let the next requests through, if even at their dearest they stay within the budget.

        Args:
            requests: how many there are.
            tokens: of their prompts and longest answers together, at most.

        Raises:
            BudgetError: they could exceed it; nothing of them was asked.
        """
        total = self.total
        spent = total.prompt_tokens + total.completion_tokens
        if self.budget.max_tokens is not None and total.unmetered:
            raise BudgetError(
                "`evaluate.budget.max_tokens` cannot be held: the server does not say how many "
                "tokens it used. Bound `evaluate.budget.max_requests` instead."
            )
        for name, limit, used, more in (
            ("max_requests", self.budget.max_requests, total.requests, requests),
            ("max_tokens", self.budget.max_tokens, spent, tokens),
        ):
            if limit is not None and used + more > limit:
                unit = name.removeprefix("max_")
                raise BudgetError(
                    f"Stopped at the budget: {used:,} of {limit:,} {unit} are used, and the next "
                    f"batch may take {more:,}. What was answered is kept in {self.folder}. To go "
                    f"on, set `evaluate.budget.{name}` to {used + more:,} or more (or "
                    "`evaluate.batch` lower in a new folder) and run the same command again."
                )

    def record(self) -> None:
        """Write down what has been asked, for the report and for the next session."""
        make_folder(self.folder)
        write_json(self.folder / FILE, {**asdict(self.total), "cost": self.cost})

    @property
    def cost(self) -> float | None:
        """Price of the tokens, in the currency of the prices; None without prices."""
        prompt, completion = self.budget.prompt_price, self.budget.completion_price
        if prompt is None or completion is None:
            return None
        return self.total.cost(prompt, completion)


def read_usage(folder: Path) -> Usage | None:
    """What an evaluation folder has on record; None where its model was not served.

    Raises:
        DataError: a record that Holdfast did not write.
    """
    found = _record(folder)
    if found is None:
        return None
    counts = {f.name: found.get(f.name, 0) for f in fields(Usage)}
    wrong = [name for name, n in counts.items() if type(n) is not int or n < 0]
    if wrong:
        raise DataError(
            f"{folder / FILE}: {wrong[0]!r} is {counts[wrong[0]]!r}, no count. Restore the file, "
            "or delete it to count from zero."
        )
    return Usage(**counts)


def read_cost(folder: Path) -> float | None:
    """The price on record; None where no prices were given."""
    cost = (_record(folder) or {}).get("cost")
    return float(cost) if isinstance(cost, (int, float)) and not isinstance(cost, bool) else None


def _record(folder: Path) -> dict[str, Any] | None:
    path = folder / FILE
    return read_object(path) if path.is_file() else None
