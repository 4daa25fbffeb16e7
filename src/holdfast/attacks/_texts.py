"""What several attacks share: texts from the user's files, and a turn worded anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast.errors import DataError, MaterialError, did_you_mean
from holdfast.rows import sources
from holdfast.rows.hub import HUB_ID, open_hub
from holdfast.rows.records import read_records
from holdfast.types import Message, Segment

_ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


def read_rows(ref: str, *, split: str = "train", data_dir: Path | None = None) -> list[Any]:
    """Rows of a file, of a source by its name in `sources.yaml`, or of a Hub dataset.

    Raises:
        MaterialError: there is no such file, or the source or dataset is not at hand.
        DataError: it cannot be read, a row is broken, or there is none.
    """
    path = Path(ref).expanduser()
    named = ref in sources.known() and not path.is_file()
    if not named and not path.is_file() and HUB_ID.fullmatch(ref) and path.suffix not in _ENDINGS:
        rows: list[Any] = list(open_hub(ref, split))
    else:
        rows = _rows_of_file(sources.require(ref, data_dir) if named else _existing(path))
    if not rows:
        raise DataError(f"{ref} holds no row; at least one was expected.")
    return rows


def _existing(path: Path) -> Path:
    if path.is_file():
        return path
    near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = did_you_mean(path.name, near) if near else ""
    raise MaterialError(
        f"There is no file {path}, and no source of that name. "
        f"{hint if hint.startswith('Did') else 'Give a file of rows: ' + ', '.join(_ENDINGS)}"
    )


def _rows_of_file(path: Path) -> list[Any]:
    rows = []
    for record in read_records(path):
        if record.problem is not None:
            raise DataError(f"{path}, {record.place}: {record.problem}. Correct the row.")
        rows.append(record.value)
    return rows


def text_of(row: Any, column: str) -> str:
    """A column of a row as text; empty where the row has none."""
    value = row.get(column) if isinstance(row, Mapping) else None
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return str(value)
    return ""


def reworded(messages: tuple[Message, ...], text: str) -> tuple[Message, ...]:
    """The turns with `text` in place of the last request; a system turn stays."""
    last = max(i for i, turn in enumerate(messages) if turn.role == "user")
    changed = replace(messages[last], segments=(Segment(text),))
    return (*messages[:last], changed, *messages[last + 1 :])
