"""What grows with the rows lies on disk: appended, joined, and read back a piece at a time."""

from __future__ import annotations

import heapq
import mmap
import struct
import tempfile
import weakref
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

_HELD = 1 << 16
"""Bytes kept in memory until they go to the file."""
_ID_BYTES = 255
"""Of each row's id kept: as many as its length byte can say."""
_SIZES = struct.Struct("<HH")
"""Lengths of an id and its note, in bytes."""
_MOST = (1 << 16) - 1


class Spill:
    """Bytes in a nameless temporary file that goes with the object. Pickles with its content."""

    def __init__(self, content: bytes = b"") -> None:
        self._tail = bytearray()
        self._file: IO[bytes] | None = None
        self._map: mmap.mmap | None = None
        self.size = 0
        self.write(content)

    def write(self, data: bytes | bytearray) -> None:
        """Append."""
        self._tail += data
        self.size += len(data)
        if len(self._tail) >= _HELD:
            self._flush()

    def take(self, other: Spill) -> None:
        """Append what another one holds."""
        data = other.view(np.uint8)
        for start in range(0, len(data), _HELD):
            self.write(data[start : start + _HELD].tobytes())

    def view(self, dtype: Any) -> np.ndarray:
        """All of it as a read-only array, mapped where it lies in the file."""
        if self._file is None:
            return np.frombuffer(bytes(self._tail), dtype=dtype)
        self._flush()
        self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(self._map, dtype=dtype)

    def release(self) -> None:
        """Give the memory of the pages read so far back; the last view stays good."""
        if self._map is not None and hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def _flush(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the object)
            weakref.finalize(self, self._file.close)
        self._file.write(self._tail)
        self._file.flush()
        self._tail = bytearray()

    def __reduce__(self) -> tuple[Any, ...]:
        return Spill, (self.view(np.uint8).tobytes(),)


class RowIds:
    """The ids of rows by number, at most 255 bytes of each; a byte a row is held."""

    def __init__(self) -> None:
        self._names = Spill()
        self._sizes = bytearray()

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, row_id: str) -> None:
        """The next row's id."""
        name = row_id.encode("utf-8", "surrogatepass")[:_ID_BYTES]
        self._names.write(name)
        self._sizes.append(len(name))

    def take(self, other: RowIds) -> None:
        """The ids of further rows."""
        self._names.take(other._names)
        self._sizes += other._sizes

    def smallest(self, numbers: np.ndarray, count: int) -> list[str]:
        """The first ids, in alphabetical order, of the rows with these numbers (ascending)."""
        return heapq.nsmallest(count, self.of(numbers))

    def of(self, numbers: np.ndarray) -> Iterator[str]:
        """The ids of the rows with these numbers (ascending)."""
        sizes = np.frombuffer(self._sizes, dtype=np.uint8)
        names = self._names.view(np.uint8)
        seen = start = 0
        for number in numbers:
            start += int(sizes[seen:number].sum(dtype=np.int64))
            seen = number
            name = names[start : start + int(sizes[number])].tobytes()
            yield name.decode("utf-8", "replace")


class Notes:
    """Ids of rows with a note on each, in the order they came."""

    __slots__ = ("_spill",)

    def __init__(self) -> None:
        self._spill = Spill()

    def add(self, row_id: str, note: str) -> None:
        """Write down a row."""
        name = row_id.encode("utf-8", "surrogatepass")[:_MOST]
        said = note.encode("utf-8", "surrogatepass")[:_MOST]
        self._spill.write(_SIZES.pack(len(name), len(said)) + name + said)

    def take(self, other: Notes) -> None:
        """Append what another one wrote down."""
        self._spill.take(other._spill)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        data = self._spill.view(np.uint8).data
        at = released = 0
        while at < len(data):
            name, said = _SIZES.unpack_from(data, at)
            start = at + _SIZES.size
            at = start + name + said
            yield _text(data[start : start + name]), _text(data[start + name : at])
            if at - released >= _HELD:
                self._spill.release()
                released = at


def _text(data: memoryview) -> str:
    return bytes(data).decode("utf-8", "replace")
