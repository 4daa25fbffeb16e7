"""Rendered rows on disk: flat arrays, memory-mapped, so that a set larger than memory trains."""

from __future__ import annotations

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
                handles["input_ids"].write(np.asarray(row.input_ids, dtype=np.int32).tobytes())
                handles["labels"].write(np.asarray(row.labels, dtype=np.int32).tobytes())
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
            flat = np.memmap(path, dtype=np.int32, mode="r") if offsets[-1] else np.empty(0, "i4")
            np.save(folder / f"{name}.npy", np.asarray(flat))
            del flat
            path.unlink()
        np.save(folder / "offsets.npy", np.asarray(offsets, dtype=np.int64))
    write_json(folder / "shape.json", {"rows": len(offsets) - 1, "tokens": offsets[-1]})
    return RenderedRows.open(folder)
