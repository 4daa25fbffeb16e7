"""Files of rows as a stream of records: JSON lines, JSON, CSV, Parquet; memory stays flat.

What is wrong with one row (broken JSON on a line, too few fields) travels on as that record's
`problem`; what is wrong with the file (encoding, an array that does not close) is a `DataError`.
JSON is told from JSON lines by what is inside, since both go by either extension.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from holdfast.errors import DataError, MaterialError
from holdfast.rows.encoding import (
    check_encoding,
    check_file,
    first_character,
    kind_of,
    read_chunks,
    read_lines,
)
from holdfast.rows.jsonstream import array_elements

HOPELESS = 20
"""A file whose first lines, so many, are all broken is not JSON lines at all."""

_LONGEST_FIELD = 1 << 24
"""Characters; a longer CSV field is a quote that was never closed."""

_WRAPPERS = ("data", "rows", "examples", "instances", "items", "train")
_SINGULAR = {
    name + "s": name
    for name in (
        "instruction", "input", "output", "prompt", "completion", "response", "question", "answer",
        "tag", "label",
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Record:
    """One row as it lies in the file, or what is wrong with it."""

    number: int
    """1-based count of rows."""
    line: int
    """1-based line on which the row begins; the row number where a file has no lines."""
    value: Any = None
    problem: str | None = None
    unit: str = "line"
    """What `line` counts: `line` or `row`."""

    @property
    def place(self) -> str:
        """For example `line 12`."""
        return f"{self.unit} {self.line}"


def read_records(path: Path) -> Iterator[Record]:
    """Stream the rows of a file.

    Raises:
        DataError: the file is missing, empty, of an unknown kind, not UTF-8, or broken as a whole.
        MaterialError: Parquet without the extra `holdfast[parquet]`.
    """
    kind = check_file(path)
    if kind == ".parquet":
        yield from _parquet(path)
        return
    check_encoding(path)
    if kind in (".csv", ".tsv"):
        yield from read_table(path)
    else:
        yield from _json(path, kind)


# --- JSON --------------------------------------------------------------------------------------


def _json(path: Path, kind: str) -> Iterator[Record]:
    if first_character(path) == "[":
        return _array(path)
    if kind == ".json" and not _has_object_lines(path):
        return _document(path)
    return _json_lines(path)


def _has_object_lines(path: Path) -> bool:
    """Whether the first line is an object by itself and more lines follow."""
    lines = (line for line in read_lines(path) if line.strip())
    return isinstance(_decode(next(lines))[0], dict) and next(lines, None) is not None


def _decode(text: str) -> tuple[Any, str | None]:
    """A JSON value and None, or None and what is wrong."""
    try:
        return json.loads(text), None
    except json.JSONDecodeError as error:
        return None, f"broken JSON ({error.msg}, column {error.colno})"
    except (ValueError, RecursionError) as error:
        return None, f"broken JSON ({error})"


def _json_lines(path: Path) -> Iterator[Record]:
    number = broken = 0
    first = ""
    for line, text in enumerate(read_lines(path), 1):
        if not text.strip():
            continue
        number += 1
        value, problem = _decode(text)
        if problem is not None:
            broken += 1
            first = first or f"line {line}: {problem}"
        if broken == number == HOPELESS:
            raise _hopeless(path, first, number)
        yield Record(number, line, value, problem)
    if broken == number:
        raise _hopeless(path, first, number)


def _hopeless(path: Path, first: str, number: int) -> DataError:
    count = "its only line is" if number == 1 else f"its first {number} lines are all"
    return DataError(
        f"{path}, {first}; {count} broken. One JSON object per line was expected, such as "
        '{"prompt": "…", "completion": "…"}. Write each row on a line of its own, or name an array '
        "of rows .json."
    )


def _array(path: Path) -> Iterator[Record]:
    def broken(line: int, reason: str) -> DataError:
        return DataError(
            f"{path}, line {line}: broken JSON ({reason}); an array of rows was expected. "
            "Correct that line, or write one row per line (.jsonl), where a broken row is set "
            "aside alone."
        )

    elements = array_elements(read_chunks(path), broken)
    for number, (line, value) in enumerate(elements, 1):
        yield Record(number, line, value)


def _document(path: Path) -> Iterator[Record]:
    text = "".join(read_lines(path))
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {error.lineno}: broken JSON ({error.msg}); rows were expected. "
            "Correct that line, or write one row per line (.jsonl)."
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: broken JSON ({error}); rows were expected.") from error
    if not isinstance(value, dict):
        raise DataError(
            f"{path}, line 1: rows were expected, found one {type(value).__name__}. "
            'Write an array of objects, such as [{"prompt": "…", "completion": "…"}].'
        )
    for number, row in enumerate(_rows_of(path, value), 1):
        yield Record(number, number, row, unit="row")


def _rows_of(path: Path, document: Mapping[str, Any]) -> list[Any]:
    """Rows of one object: a list of rows under a key, one conversation, or lists as columns."""
    lists = {k: v for k, v in document.items() if isinstance(v, list) and v}
    tables = {k: v for k, v in lists.items() if isinstance(v[0], Mapping)}
    for key in _WRAPPERS:
        if key in tables:
            return tables[key]
    if not lists or "messages" in tables or "conversations" in tables:
        return [dict(document)]
    if len(tables) == 1:
        return next(iter(tables.values()))
    lengths = {key: len(values) for key, values in lists.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(
            f"{path}: the lists in it differ in length ({lengths}), so they are no columns of "
            "rows. Write an array of objects instead."
        )
    names = [_SINGULAR.get(key, key) for key in lists]
    return [dict(zip(names, row, strict=True)) for row in zip(*lists.values(), strict=True)]


# --- tables ------------------------------------------------------------------------------------


def read_table(path: Path, names: Sequence[str] | None = None) -> Iterator[Record]:
    """Stream the rows of a CSV or TSV file.

    Args:
        path: The file.
        names: Column names of a file without a header line.
    """
    csv.field_size_limit(_LONGEST_FIELD)
    lines = read_lines(path)
    first = next(lines)
    reader = csv.reader(chain([first], lines), delimiter=_delimiter(path, first), strict=True)
    header = list(names) if names else _header(path, reader)
    number = 0
    while True:
        line = reader.line_num + 1
        problem: str | None = None
        try:
            fields = next(reader, None)
        except csv.Error as error:
            if "unexpected end" in str(error) or "field larger" in str(error):
                raise DataError(
                    f"{path}, line {line}: a quote opened here is never closed. "
                    'Close it, or double it ("") inside a quoted field.'
                ) from error
            fields, problem = [""], f"broken CSV ({error})"
        if fields is None:
            return
        if not fields:
            continue
        number += 1
        yield _row(number, line, header, fields, problem)


def _row(
    number: int, line: int, header: list[str], fields: list[str], problem: str | None
) -> Record:
    if problem is None and len(fields) != len(header):
        problem = f"{len(fields)} fields where the header has {len(header)}"
    if problem is not None:
        return Record(number, line, problem=problem)
    return Record(number, line, dict(zip(header, fields, strict=True)))


def _header(path: Path, reader: Iterator[list[str]]) -> list[str]:
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise DataError(f"{path}, line 1: broken CSV header ({error}).") from error
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice or "" in header:
        what = f"names {twice[0]!r} twice" if twice and twice[0] else "has a column without a name"
        raise DataError(f"{path}, line 1: the header {what}. Give each column one name.")
    return header


def _delimiter(path: Path, header: str) -> str:
    if kind_of(path) == ".tsv":
        return "\t"
    if "," in header:
        return ","
    return max(",;\t", key=header.count)


def _parquet(path: Path) -> Iterator[Record]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MaterialError(
            f"{path}: reading Parquet needs pyarrow. Install it: pip install 'holdfast[parquet]'"
        ) from error
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield Record(number, number, row, unit="row")
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{path} cannot be read as Parquet ({reason}). Write or copy it again."
        ) from error
