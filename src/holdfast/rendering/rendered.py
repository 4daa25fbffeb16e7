"""Rendered rows on disk: flat arrays, memory-mapped, so that a set larger than memory trains."""

from __future__ import annotations

import shutil
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.files import append_jsonl, make_folder, storage_errors, write_json
from holdfast.types import Rendered

_COLUMNS = ("input_ids", "labels")


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
    """Stream rows into a folder: `input_ids.npy`, `labels.npy`, `offsets.npy` and `ids.jsonl`.

    Memory is 8 bytes a row, whatever their length.
    """
    make_folder(folder)
    spill = {name: folder / f".{name}.raw" for name in _COLUMNS}
    offsets = array("q", [0])
    names = folder / "ids.jsonl"
    names.unlink(missing_ok=True)
    with storage_errors(folder):
        handles = {name: path.open("wb") for name, path in spill.items()}
        try:
            pending: list[dict[str, str]] = []
            for row in rows:
                handles["input_ids"].write(array("i", row.input_ids).tobytes())
                handles["labels"].write(array("i", row.labels).tobytes())
                offsets.append(offsets[-1] + len(row.input_ids))
                pending.append({"id": row.id, "source": row.source})
                if len(pending) >= 4096:
                    append_jsonl(names, pending)
                    pending = []
            append_jsonl(names, pending)
        finally:
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
