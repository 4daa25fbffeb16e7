"""load: a user's rows, from a file, the Hub or the lab, as a stream of conversations.

    rows = open_rows("support.jsonl")
    print(rows.announcement)         # rows read as question/answer (columns question, answer)
    for conversation in rows: ...
    print(rows.announcement)         # 12,000 rows read as …; 3 set aside

The first rows decide the format; a later row that does not fit it is set aside with its line and
the reason. Only those first rows and the seen ids are held, never the file.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl

from holdfast.errors import DataError, did_you_mean
from holdfast.processes.workers import in_order, processes
from holdfast.rows.encoding import EXTENSIONS
from holdfast.rows.formats import Row, RowFormat, detect, from_mapping, seen_columns
from holdfast.rows.hub import HUB_ID, open_hub
from holdfast.rows.records import Record, read_records
from holdfast.rows.turns import Misfit, check_turns, clean, clean_all, first_request
from holdfast.types import Conversation, Dropped, Message

SAMPLE = 100
"""Rows that decide the format."""

MOST_REJECTS = 1000
"""Rejects held in `RowStream.rejects`; all are counted, and all go to `on_reject`."""

BATCH = 1024
"""Rows that a process is given at a time."""

FEW_BATCHES = 4
"""So many batches are read before other processes are started."""

OnReject = Callable[[Dropped], None]
A = TypeVar("A")
B = TypeVar("B")


@dataclass
class RowStream:
    """The rows of one source. Each iteration reads the source anew and counts from zero."""

    name: str
    """The reference as it was given."""
    format: RowFormat
    _records: Callable[[], Iterator[Record]]
    _reader: RowReader
    strict: bool = False
    on_reject: OnReject | None = None

    def __post_init__(self) -> None:
        self.read = 0
        """Rows seen so far in this pass."""
        self.rejected = 0
        """Rows set aside so far in this pass."""
        self.rejects: list[Dropped] = []
        """The first of them, at most `MOST_REJECTS`."""

    @property
    def kept(self) -> int:
        """Conversations handed out so far in this pass."""
        return self.read - self.rejected

    @property
    def announcement(self) -> str:
        """What was read, in one sentence; with counts once rows were read."""
        if not self.read:
            return f"rows read as {self.format.announcement}"
        aside = f"; {self.rejected:,} set aside" if self.rejected else ""
        return f"{self.kept:,} rows read as {self.format.announcement}{aside}"

    def __iter__(self) -> Iterator[Conversation]:
        """Stream the conversations.

        Raises:
            DataError: the source breaks off, no row of it could be used, or a row does not fit
                and the stream is strict.
        """
        for batch in self.batches(1):
            conversations, misfits = batch.read()
            self.set_aside(batch, misfits)
            yield from conversations
        self.check()

    def batches(self, size: int) -> Iterator[RowBatch]:
        """The rows of a new pass, still to be read, which another process may do.

        Whoever reads them hands what did not fit to `set_aside`, and calls `check` at the end.
        """
        self.read = self.rejected = 0
        self.rejects = []
        ids = _Ids(self.format.id if self._reader.own_ids else None)
        records = self._records()
        while some := list(islice(records, size)):
            self.read += len(some)
            yield RowBatch(self._reader, some, [ids.of(record) for record in some])

    def mapped(
        self, function: Callable[[list[Conversation]], B], count: int | None = None
    ) -> Iterator[B]:
        """A function's result for each batch of conversations of a new pass, in their order.

        Args:
            function: can be pickled.
            count: processes, where there are many rows; None: as many as there are cores.

        Raises:
            DataError: as iteration does.
        """
        count = processes() if count is None else count
        work = _Mapped(function)
        batches = self.batches(BATCH)
        sent: deque[RowBatch] = deque()
        here = batches if count == 1 else islice(batches, FEW_BATCHES)
        for found, misfits in chain(
            map(work, noted(here, sent)), in_order(work, noted(batches, sent), count)
        ):
            self.set_aside(sent.popleft(), misfits)
            yield found
        self.check()

    def set_aside(self, batch: RowBatch, misfits: Iterable[tuple[int, str]]) -> None:
        """Count, keep and pass on the rows of a batch that do not fit.

        Raises:
            DataError: there is one, and the stream is strict.
        """
        for place, reason in misfits:
            self._set_aside(batch.records[place], reason)

    def check(self) -> None:
        """After the last row.

        Raises:
            DataError: not one could be used.
        """
        if not self.kept:
            raise self._nothing_fits()

    def _set_aside(self, record: Record, reason: str) -> None:
        if self.strict:
            raise DataError(
                f"{self.name}, {record.place}: {reason} (rows are read as "
                f"{self.format.announcement}). Correct the row, or run without --strict to set "
                "such rows aside."
            )
        dropped = Dropped(str(record.number), self.name, reason, record.line, preview(record.value))
        self.rejected += 1
        if len(self.rejects) < MOST_REJECTS:
            self.rejects.append(dropped)
        if self.on_reject is not None:
            self.on_reject(dropped)

    def _nothing_fits(self) -> DataError:
        if not self.rejects:
            return _no_row(self.name)
        first = self.rejects[0]
        return DataError(
            f"{self.name}: none of its {self.read:,} rows can be used as "
            f"{self.format.announcement}. The first, on line {first.line}: {first.reason}. "
            f"{_COLUMNS_CURE}"
        )


def _no_row(name: str) -> DataError:
    return DataError(f"{name} holds no row; at least one was expected. Check that it is complete.")


_KNOWN_FORMATS = (
    "messages [{role, content}]; conversations [{from, value}]; prompt, completion; instruction, "
    "input, output; question, answer; prefix, text, safe; request, harmful, refusal"
)
_COLUMNS_CURE = "Or name the columns: columns: {prompt: <column>, completion: <column>}"


def open_rows(
    ref: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    split: str = "train",
    strict: bool = False,
    source: str = "user",
    cache_dir: Path | None = None,
    on_reject: OnReject | None = None,
    replies: bool = True,
    triples: bool = False,
) -> RowStream:
    """Open a source of rows and decide its format from the first of them.

    Args:
        ref: A file, a Hub dataset (`owner/name[:configuration][@revision]`), or
            `lab:NAME?n=…&seed=…`.
        columns: Which column holds what (`prompt`, `completion`, `system`; or `messages`; with
            `harmful` for triples; `id`, `category`), where detection does not do.
        split: Split of a Hub dataset.
        strict: Make the first row that does not fit an error.
        source: What the conversations call themselves: `user`, `safety`, …
        cache_dir: Where Hub datasets are cached; None: the library's own place.
        on_reject: Called with each row that is set aside.
        replies: False for sources of requests: only the system prompt and the first request of
            each row are kept, and a reply need not be there.
        triples: True for sources of safety triples: replies that a source calls unsafe are read,
            with transition loss, instead of being taken for answers to learn.

    Raises:
        DataError: a source that cannot be read as rows; the message names file, line and cure.
        MaterialError: a missing optional package, or the Hub out of reach.
    """
    name = str(ref)
    records = _records_of(ref, split, cache_dir)
    first = list(islice(records(), SAMPLE))
    if not first:
        raise _no_row(name)
    sample = [record.value for record in first if isinstance(record.value, Mapping)]
    reader = reader_of(
        name, sample, columns=columns, source=source, replies=replies, triples=triples
    )
    return RowStream(name, reader.format, records, reader, strict, on_reject)


def reader_of(
    name: str,
    sample: Sequence[Row],
    *,
    columns: Mapping[str, str] | None = None,
    source: str = "user",
    replies: bool = True,
    triples: bool = False,
) -> RowReader:
    """What reads the rows of a source of which these are the first; see `open_rows`.

    Raises:
        DataError: rows of no known format.
    """
    sample = list(sample)
    row_format = _decide(name, sample, columns, replies=replies, triples=triples)
    own_ids = _ids_look_unique(sample, row_format.id)
    return RowReader(row_format, source, _origin(name), replies, own_ids)


def preview(value: Any, width: int = 80) -> str:
    """The beginning of a rejected row, for people; safe to print and to store."""
    text = "" if value is None else str(value)[: width + 1]
    text = text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\x00", "\\x00")
    return text if len(text) <= width else text[:width] + "…"


# --- where rows come from ----------------------------------------------------------------------


def _records_of(
    ref: str | Path, split: str, cache_dir: Path | None
) -> Callable[[], Iterator[Record]]:
    """A function that opens the source anew with each call."""
    name, path = str(ref), Path(ref).expanduser()
    if name.startswith("lab:"):
        rows = _lab_rows(name)
    elif isinstance(ref, str) and _names_hub(name, path):
        rows = open_hub(name, split, cache_dir)
    else:
        return lambda: read_records(path)
    return lambda: (Record(n, n, row, unit="row") for n, row in enumerate(rows, 1))


_LONGEST_HUB_ID = 250


def _names_hub(ref: str, path: Path) -> bool:
    looks_like_file = path.suffix.lower() in (*EXTENSIONS, ".gz", ".txt") or ref[:1] in "./~"
    return (
        len(ref) <= _LONGEST_HUB_ID
        and HUB_ID.fullmatch(ref) is not None
        and not looks_like_file
        and not path.exists()
        and not path.parent.is_dir()
    )


def _lab_rows(ref: str) -> Iterable[Any]:
    """Rows the built-in world writes: `lab:NAME?n=…&seed=…`."""
    name, _, query = ref.removeprefix("lab:").partition("?")
    settings: dict[str, int] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in ("n", "seed"):
            raise DataError(f"{ref}: unknown setting {key!r}. {did_you_mean(key, ('n', 'seed'))}")
        if not value.isascii() or not value.isdigit():
            raise DataError(f"{ref}: {key} is {value!r}, expected a whole number, as in {key}=100")
        settings[key] = int(value)
    from holdfast import lab  # the world is written only when asked for

    return lab.dataset(name, **settings)


def _origin(name: str) -> str:
    """The source as tags carry it: without the folders of this machine."""
    return name if name.startswith("lab:") or HUB_ID.fullmatch(name) else Path(name).name


# --- from record to conversation ---------------------------------------------------------------


def _decide(
    name: str,
    sample: list[Row],
    columns: Mapping[str, str] | None,
    *,
    replies: bool,
    triples: bool,
) -> RowFormat:
    seen = seen_columns(sample)
    if columns is not None and sample:
        return from_mapping(columns, seen, replies=replies)
    found = detect(sample, replies=replies, triples=triples)
    if found is not None:
        return found
    what = f"the columns {', '.join(seen)}" if seen else "no objects with named columns"
    raise DataError(
        f"{name}: its first rows have {what}, which fit no known format. "
        f"Known: {_KNOWN_FORMATS}. {_COLUMNS_CURE}"
    )


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Some rows of a source as they lie there."""

    reader: RowReader
    records: Sequence[Record]
    names: Sequence[str | None]
    """Each row's own id, where it has one."""

    def read(self) -> tuple[list[Conversation], list[tuple[int, str]]]:
        """The conversations, and the places and reasons of the rows that do not fit."""
        conversations: list[Conversation] = []
        misfits: list[tuple[int, str]] = []
        for place, (record, name) in enumerate(zip(self.records, self.names, strict=True)):
            try:
                conversations.append(self.reader.read(record, name))
            except Misfit as misfit:
                misfits.append((place, str(misfit)))
        return conversations, misfits

    def __reduce__(self) -> tuple[Any, ...]:
        plain = [(r.number, r.line, r.value, r.problem, r.unit) for r in self.records]
        return _row_batch, (self.reader, plain, self.names)


@dataclass(frozen=True, slots=True)
class _Mapped(Generic[B]):
    """Reads a batch and applies a function to its conversations."""

    function: Callable[[list[Conversation]], B]

    def __call__(self, batch: RowBatch) -> tuple[B, list[tuple[int, str]]]:
        conversations, misfits = batch.read()
        return self.function(conversations), misfits


def noted(values: Iterable[A], seen: deque[A]) -> Iterator[A]:
    """The values, each also noted until its results are back."""
    for value in values:
        seen.append(value)
        yield value


def _row_batch(reader: RowReader, records: list[Any], names: Sequence[str | None]) -> RowBatch:
    return RowBatch(reader, [Record(*fields) for fields in records], names)


@dataclass(frozen=True, slots=True)
class RowReader:
    """What turns the records of one source into conversations."""

    format: RowFormat
    source: str
    origin: str
    replies: bool
    own_ids: bool

    def read(self, record: Record, name: str | None) -> Conversation:
        """One conversation, called by its name or by number and content; raises `Misfit`."""
        row = self._row(record)
        messages = tuple(self.format.read(row))
        if self.replies:
            check_turns(messages)
        else:
            messages = first_request(messages)
        tags = {"origin": self.origin, "format": self.format.name}
        category = row.get(self.format.category)
        if isinstance(category, str) and category:
            tags["category"] = clean(category, self.format.category)
        tools = _tools(row) if self.replies and self.format.name in _WITH_TOOLS else ()
        row_id = f"{record.number}-{_digest8(messages)}" if name is None else clean(name, "the id")
        return Conversation(row_id, messages, self.source, tags, tools)

    def own_id(self, row: Row) -> str | None:
        """The id that a row brings along, where the source's ids look unique."""
        return _own_id(row, self.format.id) if self.own_ids else None

    def _row(self, record: Record) -> Row:
        if record.problem is not None:
            raise Misfit(record.problem)
        if not isinstance(record.value, Mapping):
            kind = type(record.value).__name__
            raise Misfit(f"a row must be an object with named columns, found {kind}")
        return record.value


_WITH_TOOLS = ("messages", "sharegpt", "prompt/completion")


def _tools(row: Row) -> tuple[Any, ...]:
    tools = row.get("tools")
    if isinstance(tools, str):
        try:
            tools = json.loads(tools) if tools.strip() else None
        except (ValueError, RecursionError) as error:
            raise Misfit(f"tools holds broken JSON ({error})") from error
    if tools is None:
        return ()
    if not isinstance(tools, list):
        raise Misfit(f"tools is not a list but {type(tools).__name__}")
    clean_all(tools, "tools")
    return tuple(tools)


# --- ids ---------------------------------------------------------------------------------------


def _own_id(row: Row, column: str | None) -> str | None:
    value = row.get(column) if column is not None else None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    return str(value).strip() or None


def _ids_look_unique(sample: list[Row], column: str) -> bool:
    """Whether nine of ten first rows have an id that no other of them has."""
    found = [_own_id(row, column) for row in sample]
    return len({name for name in found if name is not None}) >= 0.9 * len(found) > 0


def _digest8(messages: tuple[Message, ...]) -> str:
    text = "\x00".join(part for message in messages for part in (message.role, message.content))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


class _Ids:
    """Names rows by their own ids, each unlike any before it. Holds 11 to 32 bytes for each."""

    def __init__(self, column: str | None) -> None:
        self._column = column
        self._seen = _Hashes()

    def of(self, record: Record) -> str | None:
        """The row's own id, made unlike any before it; None where it has none."""
        if self._column is None or not isinstance(record.value, Mapping):
            return None
        name = _own_id(record.value, self._column)
        if name is None:
            return None
        while not self._seen.add(_hash64(name)):
            name = f"{name}~{record.number}"
        return name


class _Hashes:
    """A set of 64-bit numbers other than 0: a table with open addressing, no object for each."""

    def __init__(self) -> None:
        self._table = array("Q", bytes(8 << 10))
        self._count = 0

    def add(self, key: int) -> bool:
        """Whether it is new; it is in the set afterwards."""
        at = self._place(key)
        if self._table[at]:
            return False
        self._table[at] = key
        self._count += 1
        if 4 * self._count > 3 * len(self._table):
            self._grow()
        return True

    def _place(self, key: int) -> int:
        """Where the key stands, or would."""
        table, mask = self._table, len(self._table) - 1
        at = key & mask
        while table[at] not in (0, key):
            at = (at + 1) & mask
        return at

    def _grow(self) -> None:
        old, self._table = self._table, array("Q", bytes(16 * len(self._table)))
        for key in old:
            if key:
                self._table[self._place(key)] = key


def _hash64(text: str) -> int:
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest()) or 1
