"""A text file's bytes: there, of a known kind, UTF-8, perhaps gzipped; decoded line by line.

Every way in which this goes wrong is one `DataError` that names the place and the cure.
"""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from holdfast.errors import DataError, did_you_mean

EXTENSIONS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
"""What can be read; each but Parquet also with `.gz` behind it."""

_CHUNK = 1 << 16


def check_file(path: Path) -> str:
    """The file's extension, `.gz` aside, after everything that can be said without reading it.

    Raises:
        DataError: no such file, a folder, an empty file, an unknown extension, no access.
    """
    try:
        return _checked_kind(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}). Check the path and its rights."
        ) from error


def _checked_kind(path: Path) -> str:
    if path.is_dir():
        inside = ", ".join(sorted(p.name for p in path.iterdir() if kind_of(p) in EXTENSIONS)[:5])
        raise DataError(
            f"{path} is a folder, a file of rows was expected. "
            + (f"Name one of its files: {inside}." if inside else "It holds no file of rows.")
        )
    if not path.exists():
        raise DataError(f"{path} does not exist. {_nearby(path)}")
    kind = kind_of(path)
    if kind not in EXTENSIONS:
        raise DataError(
            f"{path} has the extension {path.suffix or '(none)'!r}; rows are read from "
            f"{', '.join(EXTENSIONS)} (also .gz). Rename or convert the file."
        )
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes); at least one row was expected.")
    return kind


def kind_of(path: Path) -> str:
    """Extension in lower case, `.gz` aside."""
    name = path.name.lower()
    return Path(name.removesuffix(".gz")).suffix


def _nearby(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"Its folder {folder} does not exist either; check the path."
    files = [p.name for p in folder.iterdir() if kind_of(p) in EXTENSIONS]
    return did_you_mean(path.name, files) if files else f"{folder.resolve()} holds no file of rows."


def _open(path: Path) -> BinaryIO:
    try:
        if path.suffix.lower() == ".gz":
            return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, gzip.open(path, "rb"))))
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Check its rights.") from error


def _read(path: Path, handle: BinaryIO, size: int) -> bytes:
    try:
        return handle.read(size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _bad_gzip(path, error) from error


def _bad_gzip(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is not a whole gzip file ({error}). Compress or copy it again.")


def check_encoding(path: Path) -> None:
    """Look at the beginning: UTF-8 and more than white space.

    Raises:
        DataError: UTF-16, nothing but white space, or a damaged gzip file.
    """
    with _open(path) as handle:
        head = _read(path, handle, 4096)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or _looks_wide(head):
        raise DataError(
            f"{path} is UTF-16 text (seen at byte 0, line 1); rows are read as UTF-8. "
            f"Convert it: {_iconv(path, 'UTF-16')}"
        )
    if not head.removeprefix(b"\xef\xbb\xbf").strip() and len(head) < 4096:
        raise DataError(f"{path} is empty (white space only); at least one row was expected.")


def _looks_wide(head: bytes) -> bool:
    return len(head) >= 4 and max(head[0::2].count(0), head[1::2].count(0)) > len(head) // 4


def _iconv(path: Path, encoding: str) -> str:
    return f"iconv -f {encoding} -t UTF-8 '{path}' > '{path.stem}.utf8{path.suffix}'"


def _not_utf8(path: Path, line: int, offset: int, byte: int) -> DataError:
    return DataError(
        f"{path}, line {line}: byte {offset} (0x{byte:02X}) is not UTF-8; rows are read as UTF-8. "
        f"Convert the file, for example: {_iconv(path, 'WINDOWS-1252')}"
    )


def read_lines(path: Path) -> Iterator[str]:
    """Decoded lines with their ends, the byte order mark removed."""
    offset = 0
    with _open(path) as handle:
        try:
            for number, raw in enumerate(handle, 1):
                try:
                    text = raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    at = error.start
                    raise _not_utf8(path, number, offset + at, raw[at]) from error
                offset += len(raw)
                yield text.removeprefix("\ufeff") if number == 1 else text
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _bad_gzip(path, error) from error


def read_chunks(path: Path) -> Iterator[str]:
    """Decoded pieces of a file that may be one endless line, the byte order mark removed."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    read, line = 0, 1
    with _open(path) as handle:
        while raw := _read(path, handle, _CHUNK):
            read += len(raw)
            try:
                text = decoder.decode(raw)
            except UnicodeDecodeError as error:
                rest, at = error.object, error.start
                line += rest.count(b"\n", 0, at)
                raise _not_utf8(path, line, read - len(rest) + at, rest[at]) from error
            line += text.count("\n")
            yield text.removeprefix("\ufeff") if read == len(raw) else text
    pending = decoder.getstate()[0]
    if pending:
        raise _not_utf8(path, line, read - len(pending), pending[0])


def first_character(path: Path) -> str:
    """The first character that is not white space."""
    with _open(path) as handle:
        head = _read(path, handle, 4096)
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1].decode("latin-1")
