"""A benchmark: items read from one pinned file of public material.

The smallest one:

    @TASKS.register("riddles")
    class Riddles(Benchmark):
        '''What a model makes of riddles.'''
        name, source, expects = "riddles", "riddles", "answer"
        def read(self, path):
            return [self.item(r.number, r.value["riddle"]) for r in read_records(path)]
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from holdfast.errors import DataError
from holdfast.rows import sources
from holdfast.tasks import TaskContext
from holdfast.types import Expects, Item, Message


class Benchmark:
    """Base of the tasks that stand on one source of `sources.yaml`."""

    name: str
    source: str
    """Name in `sources.yaml`."""
    expects: Expects
    judges: tuple[str, ...] = ("refusal",)
    answer: str = ""
    """How references are compared."""
    drawn_as: str = ""
    """Sets whose items are twins share this name: then a smaller evaluation asks whole pairs."""

    def __init__(self) -> None:
        self.licence = sources.get(self.source).licence

    def missing(self, context: TaskContext) -> str | None:
        """None when the file is at hand, else what is missing and how to get it."""
        return sources.missing(self.source, context.data_dir, context.offline)

    def items(self, context: TaskContext) -> list[Item]:
        """All items, in the order of the file.

        Raises:
            MaterialError: the file is missing or is not what its checksum says.
            DataError: the file has other columns than the source is known to have.
        """
        path = sources.require(self.source, context.data_dir, context.offline)
        try:
            return list(self.read(path))
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{path} cannot be read as {self.name} ({error!r}): the source has changed its "
                f"form. Get the pinned file: holdfast fetch {self.source} --to {context.data_dir}"
            ) from error

    def read(self, path: Path) -> Iterable[Item]:
        """Items of the file."""
        raise NotImplementedError

    def item(
        self, number: int | str, request: str, *, reference: str = "", category: str = ""
    ) -> Item:
        """One item; `number` is the set's own id or the row's number."""
        return Item(
            id=str(number),
            task=self.name,
            messages=(Message.of("user", request),),
            expects=self.expects,
            reference=reference,
            answer=self.answer,
            category=category,
        )
