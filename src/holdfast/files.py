"""Files that are whole or absent: atomic writes, JSON lines, hashes, a message for a full disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TextIO

from holdfast.errors import DataError, StorageError


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into one clear message."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(_existing(path)).free
            raise StorageError(
                f"The disk is full: {path} could not be written ({free / 1e6:.0f} MB free). "
                "Free some space and run the same command again; finished work is kept."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise StorageError(
                f"{path} cannot be written ({error.strerror}). "
                "Choose another folder (`run:` in the recipe, or --output) or change its rights."
            ) from error
        raise


def _existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def make_folder(path: Path) -> Path:
    """Create a folder and its parents, and check that it can be written.

    Raises:
        StorageError: it cannot.
    """
    with storage_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):  # nameless: a kill leaves nothing behind
            pass
    return path


def neighbour(path: Path) -> Path:
    """Where this process writes a file until it is whole and takes its name."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def remove_torn(folder: Path) -> None:
    """Delete what killed processes had begun to write (`neighbour`), in a folder that we hold."""
    for path in folder.rglob(".*.part"):
        if path.suffixes[-2:-1] and path.suffixes[-2][1:].isdigit():
            path.unlink(missing_ok=True)


@contextmanager
def atomic_writer(path: Path) -> Iterator[TextIO]:
    """A text file that appears under its name only when the block ends without an error."""
    temporary = neighbour(path)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("w", encoding="utf-8", newline="\n") as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_writer(path) as handle:
        handle.write(text)


def plain(value: Any) -> Any:
    """Dataclasses, settings, paths and tuples as what `json` can store."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if hasattr(value, "to_json"):
        return value.to_json()
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


_one_line = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def dumps(value: Any, *, indent: int | None = None) -> str:
    """JSON text; non-ASCII text stays readable, NaN is an error (a bug, never data)."""
    stored = plain(value)
    if indent is None:
        text = _one_line(stored)
    else:
        text = json.dumps(stored, ensure_ascii=False, indent=indent, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair: only its escape can be written
        text = json.dumps(stored, indent=indent, allow_nan=False)
    return text


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document atomically."""
    write_text(path, dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Read one JSON document that Holdfast wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_object(path: Path) -> dict[str, Any]:
    """Read one JSON object from a file that may have been damaged or come from elsewhere.

    Raises:
        DataError: it is no JSON, or no object.
    """
    try:
        found = read_json(path)
    except ValueError as error:
        raise DataError(
            f"{path} is not valid JSON ({error}). Restore it, or make it again."
        ) from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds no JSON object. Restore it, or make it again.")
    return found


def write_jsonl(path: Path, rows: Iterable[Any]) -> int:
    """Write JSON lines atomically; returns how many."""
    count = 0
    with atomic_writer(path) as handle:
        for row in rows:
            handle.write(dumps(row) + "\n")
            count += 1
    return count


def append_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Append JSON lines in one write and wait for the disk: a batch is there or it is not."""
    text = "".join(dumps(row) + "\n" for row in rows)
    with storage_errors(path), path.open("a", encoding="utf-8", newline="\n") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Stream JSON lines that Holdfast wrote; a torn last line (a kill mid-write) ends the file."""
    with path.open(encoding="utf-8") as handle:
        for line in handle:
            if not line.endswith("\n"):
                return
            yield json.loads(line)


def drop_torn_line(path: Path) -> None:
    """Cut an unfinished last line off a JSON-lines file, so that appending can go on."""
    if not path.exists():
        return
    with path.open("rb+") as handle:
        size = handle.seek(0, os.SEEK_END)
        keep = size
        while keep > 0:
            handle.seek(keep - 1)
            if handle.read(1) == b"\n":
                break
            keep -= 1
        if keep != size:
            handle.truncate(keep)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def digest(*parts: Any) -> str:
    """Short content hash (16 hex digits) of JSON-able values."""
    text = json.dumps([plain(p) for p in parts], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def folder_digest(folder: Path) -> str:
    """Short content hash of every file in a folder, names included."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return digest([[str(p.relative_to(folder)), sha256_file(p)] for p in files])
