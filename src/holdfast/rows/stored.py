"""Stored rows: a mixture as it lies in the run folder, read where the rows are wanted.

A batch is the bytes of some lines: it costs next to nothing to send to another process, which reads
the conversations out of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from holdfast.types import Conversation


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """Some rows, as lines."""

    lines: bytes
    source: str | None

    def __iter__(self) -> Iterator[Conversation]:
        for line in self.lines.splitlines():  # of bytes: at line feeds and carriage returns alone
            row = json.loads(line)
            if self.source in (None, row["source"]):
                yield Conversation.from_json(row)


@dataclass(frozen=True, slots=True)
class StoredRows:
    """The conversations of a file that Holdfast wrote; each iteration reads it anew.

    A torn last line (a kill while it was written) ends the file.
    """

    path: Path
    source: str | None = None
    """The rows of this source alone; None: all."""

    def __iter__(self) -> Iterator[Conversation]:
        for batch in self.batches(1):
            yield from batch

    def batches(self, size: int) -> Iterator[StoredBatch]:
        """The rows, so many at a time before those of another source are left out."""
        with self.path.open("rb") as handle:
            while lines := list(islice(handle, size)):
                if not lines[-1].endswith(b"\n"):
                    lines.pop()
                yield StoredBatch(b"".join(lines), self.source)
