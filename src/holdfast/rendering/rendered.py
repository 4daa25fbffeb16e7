"""Rendered rows on disk: flat arrays, memory-mapped, so that a set larger than memory trains."""

from __future__ import annotations

import shutil
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.files import dumps, make_folder, storage_errors, write_json
from holdfast.types import Rendered

_COLUMNS = ("input_ids", "labels")
_AT_ONCE = 512
"""Rows that are packed together."""


@dataclass(frozen=True, slots=True)
class RenderedBatch:
    """Some rows as bytes: what passes between processes, and into files."""

    names: str
    """JSON lines of `id` and `source`."""
    lengths: list[int]
    """Tokens of each row, (N,)."""
    columns: dict[str, bytes]
    """`input_ids` and `labels`, each (sum of the lengths,) int32."""

    @classmethod
    def of(cls, rows: Sequence[Rendered]) -> RenderedBatch:
        """The rows, packed."""
        names = "".join(dumps({"id": row.id, "source": row.source}) + "\n" for row in rows)
        return cls(names, [len(row.input_ids) for row in rows], {
            "input_ids": _packed(row.input_ids for row in rows),
            "labels": _packed(row.labels for row in rows),
        })  # fmt: skip


def _packed(rows: Iterable[Sequence[int]]) -> bytes:
    return np.fromiter(chain.from_iterable(rows), np.int32).tobytes()


class RenderedRows:
    """Rows with `input_ids` and `labels`: a list to any trainer, a memory map on disk."""

    def __init__(self, columns: dict[str, Any], offsets: Any) -> None:
        self._columns = columns  # each (tokens,) int32
        self._offsets = offsets  # (N + 1,) int64

    @classmethod
    def of(cls, rows: Iterable[Rendered]) -> RenderedRows:
        """Rows in memory."""
        columns = {name: array("i") for name in _COLUMNS}
        offsets = array("q", [0])
        for row in rows:
            columns["input_ids"].extend(row.input_ids)
            columns["labels"].extend(row.labels)
            offsets.append(len(columns["input_ids"]))
        arrays = {name: np.asarray(column, dtype=np.int32) for name, column in columns.items()}
        return cls(arrays, np.asarray(offsets, dtype=np.int64))

    @classmethod
    def open(cls, folder: Path) -> RenderedRows:
        """Rows that `write_rendered` stored, memory-mapped."""
        columns = {n: np.load(folder / f"{n}.npy", mmap_mode="r") for n in _COLUMNS}
        return cls(columns, np.load(folder / "offsets.npy"))

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row, (N,)."""
        lengths: list[int] = np.diff(self._offsets).tolist()
        return lengths

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, end = self._offsets[index], self._offsets[index + 1]
        return {name: self._columns[name][start:end].tolist() for name in _COLUMNS}

    def __iter__(self) -> Iterator[dict[str, list[int]]]:
        return (self[i] for i in range(len(self)))


class RenderedPairs:
    """Preference pairs: rows 2 i and 2 i + 1 are the chosen and the rejected side of pair i."""

    def __init__(self, rows: RenderedRows) -> None:
        self._rows = rows

    @classmethod
    def open(cls, folder: Path) -> RenderedPairs:
        """Pairs that `write_rendered` stored as alternating rows, memory-mapped."""
        return cls(RenderedRows.open(folder))

    @property
    def lengths(self) -> list[int]:
        """Tokens of each pair's longer side, (N,)."""
        lengths = self._rows.lengths
        return [max(both) for both in zip(lengths[0::2], lengths[1::2], strict=True)]

    def __len__(self) -> int:
        return len(self._rows) // 2

    def __getitem__(self, index: int) -> dict[str, dict[str, list[int]]]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return {"chosen": self._rows[2 * index], "rejected": self._rows[2 * index + 1]}

    def __iter__(self) -> Iterator[dict[str, dict[str, list[int]]]]:
        return (self[i] for i in range(len(self)))


def write_rendered(folder: Path, rows: Iterable[Rendered]) -> RenderedRows:
    """Stream rows into a folder, as `write_batches` does."""
    source = iter(rows)
    packs = iter(lambda: list(islice(source, _AT_ONCE)), [])
    return write_batches(folder, map(RenderedBatch.of, packs))


def write_batches(folder: Path, batches: Iterable[RenderedBatch]) -> RenderedRows:
    """Stream rows into a folder: `input_ids.npy`, `labels.npy`, `offsets.npy` and `ids.jsonl`.

    Memory is 8 bytes a row, whatever their length.
    """
    make_folder(folder)
    spill = {name: folder / f".{name}.raw" for name in _COLUMNS}
    offsets = array("q", [0])
    with storage_errors(folder), ExitStack() as stack:
        names = stack.enter_context((folder / "ids.jsonl").open("w", encoding="utf-8", newline=""))
        handles = {n: stack.enter_context(path.open("wb")) for n, path in spill.items()}
        for batch in batches:
            names.write(batch.names)
            for name, handle in handles.items():
                handle.write(batch.columns[name])
            for length in batch.lengths:
                offsets.append(offsets[-1] + length)
        for handle in handles.values():
            handle.close()
        for name, path in spill.items():
            _as_array(path, folder / f"{name}.npy", offsets[-1])
            path.unlink()
        np.save(folder / "offsets.npy", np.asarray(offsets, dtype=np.int64))
    write_json(folder / "shape.json", {"rows": len(offsets) - 1, "tokens": offsets[-1]})
    return RenderedRows.open(folder)


def _as_array(raw: Path, path: Path, length: int) -> None:
    """Copy bare numbers behind a header, a piece at a time: mapped, they would count as memory."""
    header = {"descr": np.dtype(np.int32).str, "fortran_order": False, "shape": (length,)}
    with raw.open("rb") as numbers, path.open("wb") as array_file:
        np.lib.format.write_array_header_1_0(array_file, header)
        shutil.copyfileobj(numbers, array_file, 1 << 20)
