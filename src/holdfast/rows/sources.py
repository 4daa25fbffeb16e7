"""sources: public material, pinned; found in a data folder, or fetched by `holdfast fetch`.

The table is `sources.yaml`. What has a checksum there must match it; what has none is pinned into
`holdfast.lock` on first use, and a later change is an error. Nothing is downloaded unasked.
"""

from __future__ import annotations

import functools
import hashlib
import http.client
import os
import re
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.resources import files as package_files
from pathlib import Path
from typing import IO, Any

import yaml

from holdfast.errors import DataError, MaterialError, RecipeError, did_you_mean
from holdfast.files import neighbour, sha256_file, storage_errors, write_text

LOCK_NAME = "holdfast.lock"

_PAPER_1 = (
    "i-malicious", "i-cona", "i-controversial", "i-physical-unsafe", "i-physical-safe", "q-harm",
    "i-alpaca",
)  # fmt: skip
_COMMONSENSE = ("arc-easy", "arc-challenge", "boolq", "openbookqa", "piqa", "winogrande")
_STANDARD = (
    "strongreject", "xstest", "gsm8k-test", "arc-easy", "arc-challenge", "hh-red-team",
    "or-bench-80k",
)  # fmt: skip

SUITES: Mapping[str, tuple[str, ...]] = {
    "quick": ("strongreject", "xstest", "gsm8k-test", "hh-red-team"),
    "standard": _STANDARD,
    "full": (*_STANDARD, "harmbench", "advbench"),
    "safety-tuned-llamas": ("p1", *_PAPER_1),
    "commonsense": _COMMONSENSE,
    "prompts": ("ptst-prompts", "self-reminder-prompts"),
    "derta": (
        "derta-instructions", "derta-completion", "derta-code", "derta-alpaca", "derta-gsm8k",
        "derta-mmlu",
    ),
}  # fmt: skip
"""Names that `fetch` takes for several sources; the first three serve the suites of `evaluate`."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file of public material."""

    name: str
    what: str
    licence: str
    """SPDX id, or the words of the source."""
    commercial: bool
    """Whether its terms allow commercial use; False where they are not stated."""
    files: tuple[str, ...]
    """Where it may lie under a data folder; `fetch` writes the first."""
    revision: str
    path: str
    """Its path in the repository."""
    github: str | None = None
    hub: str | None = None
    """Exactly one of `github` and `hub` names the repository."""
    sha256: str | None = None
    bytes: int | None = None

    @property
    def url(self) -> str:
        """Where `fetch` downloads it; `HF_ENDPOINT` names another Hub."""
        path = urllib.parse.quote(self.path)
        if self.github is not None:
            return f"https://raw.githubusercontent.com/{self.github}/{self.revision}/{path}"
        hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        return f"{hub}/datasets/{self.hub}/resolve/{self.revision}/{path}"


@functools.cache
def known() -> Mapping[str, Source]:
    """All sources of the table, by name."""
    text = package_files("holdfast").joinpath("sources.yaml").read_text(encoding="utf-8")
    table: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return {
        name: Source(name=name, **{**entry, "files": tuple(entry["files"])})
        for name, entry in table.items()
    }


def get(name: str) -> Source:
    """One source.

    Raises:
        RecipeError: no such source.
    """
    if name not in known():
        raise RecipeError(f"Unknown source {name!r}. {did_you_mean(name, known())}")
    return known()[name]


def expand(names: Iterable[str]) -> list[str]:
    """Names of sources and suites as names of sources, each once, in order.

    Raises:
        RecipeError: a name that is neither.
    """
    found: dict[str, None] = {}
    for name in names:
        if name not in SUITES and name not in known():
            hint = did_you_mean(name, [*SUITES, *known()])
            raise RecipeError(f"Unknown source or suite {name!r}. {hint}")
        found.update(dict.fromkeys(SUITES.get(name, (name,))))
    return list(found)


# --- what is at hand ---------------------------------------------------------------------------


def find(name: str, data_dir: Path | None) -> Path | None:
    """Where a source lies, or None; looks at names only."""
    places = [data_dir / file for file in get(name).files] if data_dir is not None else []
    return next((path for path in places if path.is_file()), None)


def missing(name: str, data_dir: Path | None, offline: bool = False) -> str | None:
    """None when a source is at hand with its size right, else one line with the cure. Cheap."""
    source, path = get(name), find(name, data_dir)
    if path is None:
        return _absent(source, data_dir, offline)
    if source.bytes is not None and path.stat().st_size != source.bytes:
        return (
            f"{path} has {path.stat().st_size:,} bytes; {name} has {source.bytes:,}. "
            f"{_fetch_line(name, data_dir, offline)}"
        )
    return None


def require(
    name: str, data_dir: Path | None, offline: bool = False, lock: Path | None = None
) -> Path:
    """The verified file of a source.

    Args:
        name: Name in the table.
        data_dir: The folder that holds the material.
        offline: Whether this machine may not download (words the cure).
        lock: Where sources without a checksum of ours are pinned; None: beside the material.

    Raises:
        RecipeError: no such source.
        MaterialError: it is not there, or it is not what its checksum says.
    """
    source, path = get(name), find(name, data_dir)
    if path is None or data_dir is None:
        raise MaterialError(_absent(source, data_dir, offline))
    actual = _sha256(path, path.stat().st_mtime_ns, path.stat().st_size)
    if source.sha256 is None:
        pin(lock or data_dir / LOCK_NAME, name, actual)
    elif actual != source.sha256:
        raise MaterialError(
            f"{path} is not the file Holdfast knows as {name}: its sha256 is {actual[:12]}…, "
            f"expected {source.sha256[:12]}…. Move it away. {_fetch_line(name, data_dir, offline)}"
        )
    return path


@functools.lru_cache(maxsize=256)
def _sha256(path: Path, mtime_ns: int, size: int) -> str:
    return sha256_file(path)


def _absent(source: Source, data_dir: Path | None, offline: bool) -> str:
    where = f"not in {data_dir} (as {source.files[0]})" if data_dir else "not at hand (no data_dir)"
    return f"{source.name}: {source.what}: {where}. {_fetch_line(source.name, data_dir, offline)}"


def _fetch_line(name: str, data_dir: Path | None, offline: bool) -> str:
    command = f"holdfast fetch {name} --to {data_dir or 'data'}"
    then = "" if data_dir else ", then set data_dir: data"
    if offline:
        return f"On a connected machine: {command}; copy the folder here{then}."
    return f"Get it: {command}{then}"


# --- first-use pins ----------------------------------------------------------------------------


def pin(lock: Path, name: str, sha256: str) -> None:
    """Record a source's checksum on first use; a later one must be the same.

    Raises:
        MaterialError: the source has changed since.
        DataError: the lock file is not one.
    """
    pins = read_pins(lock)
    if name not in pins:
        text = yaml.safe_dump({"sources": {**pins, name: sha256}}, sort_keys=True)
        write_text(lock, "# Checksums of public material, taken on first use by Holdfast.\n" + text)
    elif pins[name] != sha256:
        raise MaterialError(
            f"{name} has changed since it was first used: its sha256 is {sha256[:12]}…, "
            f"{lock} has {pins[name][:12]}…. Restore the earlier file, or, if the change is "
            f"meant, remove the line {name!r} from {lock}."
        )


def read_pins(lock: Path) -> dict[str, str]:
    """Name → sha256 of everything pinned; empty without a lock file.

    Raises:
        DataError: the file is not a lock file.
    """
    if not lock.exists():
        return {}
    try:
        document = yaml.safe_load(lock.read_text(encoding="utf-8"))
        pins = document["sources"]
        good = all(re.fullmatch("[0-9a-f]{64}", pins[name]) for name in pins)
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError):
        good = False
    if not good:
        raise DataError(
            f"{lock} is no lock file of Holdfast: expected `sources:` with a sha256 for each name. "
            "Restore it, or remove it to pin anew."
        )
    return dict(pins)


# --- fetching ----------------------------------------------------------------------------------

Opener = Callable[[str], AbstractContextManager[IO[bytes]]]
"""URL → an open response; a test passes its own."""

_TIMEOUT_S = 60
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Fetched:
    """One source that now lies in the folder."""

    source: Source
    path: Path
    sha256: str
    downloaded: bool
    """False when it lay there already, verified."""


def open_url(url: str) -> AbstractContextManager[IO[bytes]]:
    """Open an https address."""
    if not url.startswith("https://"):
        raise MaterialError(f"{url} is not an https address; set HF_ENDPOINT to one or unset it.")
    request = urllib.request.Request(url, headers={"User-Agent": "holdfast"})  # noqa: S310
    response: AbstractContextManager[IO[bytes]] = urllib.request.urlopen(  # noqa: S310
        request, timeout=_TIMEOUT_S
    )
    return response


def fetch(
    names: Sequence[str],
    to_dir: Path,
    opener: Opener = open_url,
    on_done: Callable[[Fetched], None] | None = None,
) -> list[Fetched]:
    """Bring sources into a folder; what lies there verified is not loaded again.

    Args:
        names: Sources or suites.
        to_dir: The folder, created if need be.
        opener: How an address is opened.
        on_done: Called after each source, for progress.

    Raises:
        RecipeError: an unknown name; nothing is downloaded then.
        MaterialError: an address that cannot be read, or content that is not as pinned.
        StorageError: the folder cannot be written.
    """
    sources = [get(name) for name in expand(names)]
    done = []
    for source in sources:
        done.append(_fetch_one(source, to_dir, opener))
        if on_done is not None:
            on_done(done[-1])
    return done


def _fetch_one(source: Source, to_dir: Path, opener: Opener) -> Fetched:
    lock = to_dir / LOCK_NAME
    expected = source.sha256 or read_pins(lock).get(source.name)
    there = find(source.name, to_dir)
    if there is not None and expected is not None and sha256_file(there) == expected:
        return Fetched(source, there, expected, downloaded=False)
    target = to_dir / source.files[0]
    actual = _download(source, target, expected, opener)
    if source.sha256 is None:
        pin(lock, source.name, actual)
    return Fetched(source, target, actual, downloaded=True)


def _download(source: Source, target: Path, expected: str | None, opener: Opener) -> str:
    """Stream into a neighbour file; it takes the target's name only when its checksum is right."""
    partial = neighbour(target)
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        actual = _stream(source, partial, opener)
        if expected is not None and actual != expected:
            raise MaterialError(
                f"{source.url} no longer holds {source.name} as pinned: its sha256 is "
                f"{actual[:12]}…, expected {expected[:12]}…. Nothing was stored. Take the file "
                f"from someone who has it, and put it at {target}."
            )
        with storage_errors(target):
            partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return actual


def _stream(source: Source, partial: Path, opener: Opener) -> str:
    checksum = hashlib.sha256()
    with storage_errors(partial), partial.open("wb") as output:
        for chunk in _pieces(source, opener):
            checksum.update(chunk)
            output.write(chunk)
    return checksum.hexdigest()


def _pieces(source: Source, opener: Opener) -> Iterator[bytes]:
    """The content as it arrives, whole or an error."""
    try:
        with opener(source.url) as response:
            length = getattr(response, "headers", {}).get("Content-Length")
            received = 0
            while chunk := response.read(_CHUNK):
                received += len(chunk)
                yield chunk
            if length is not None and received != int(length):
                raise http.client.IncompleteRead(b"", int(length) - received)
    except (OSError, http.client.HTTPException) as error:
        raise MaterialError(
            f"{source.name} could not be downloaded from {source.url} ({error}). "
            "Check the network and run the same command again (what is here is kept), or run it "
            "on a connected machine and copy the folder here."
        ) from error
