"""The shared stage store: what one arm has done, no other does again.

A stage's key is a hash of all its inputs and of nothing about the run folder, so two runs with the
same key would write the same bytes. A finished stage is put into `DIR/store/NAME-KEY/`, which
appears under its name in one step, and is handed to other runs as hard links: finished artefacts
are replaced, never edited in place, so a link cannot change behind a run's back.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import holdfast
from holdfast.files import digest, make_folder, read_json, storage_errors, write_json

FACTS = "facts.json"


class SharedStages:
    """Finished stages of a sweep's runs."""

    def __init__(self, folder: Path, *, alone: bool = True) -> None:
        """Open the store.

        Args:
            folder: where it lies.
            alone: whether no other process is at work in it: then what a kill left half done goes.
        """
        self.folder = make_folder(folder)
        for torn in folder.glob("*.part") if alone else ():
            shutil.rmtree(torn)

    def take(self, name: str, key: str, outputs: Sequence[str], run: Path) -> dict[str, Any] | None:
        """Put a stage's outputs into a run folder and return its facts; None: not here."""
        entry = self._entry(name, key)
        if not entry.is_dir():
            return None
        for output in outputs:
            _remove(run / output)
            _link(entry / "outputs" / output, run / output)
        facts: dict[str, Any] = read_json(entry / FACTS)
        return facts

    def keep(
        self, name: str, key: str, outputs: Sequence[str], run: Path, facts: Mapping[str, Any]
    ) -> None:
        """Remember a finished stage of a run."""
        entry = self._entry(name, key)
        if entry.exists():
            return
        part = entry.with_name(f"{entry.name}.{os.getpid()}.part")
        _remove(part)
        part.mkdir()
        for output in outputs:
            _link(run / output, part / "outputs" / output)
        write_json(part / FACTS, facts)
        try:
            part.rename(entry)
        except OSError:
            if not entry.exists():
                raise
            _remove(part)  # another process was first; equal keys, equal bytes

    def lasting(self, name: str) -> Path:
        """Where a file lies that outlives stages and is shared by all runs."""
        return make_folder(self.folder / "lasting") / name

    def _entry(self, name: str, key: str) -> Path:
        return self.folder / f"{name.replace('/', '-')}-{digest(holdfast.__version__, name, key)}"


def _link(source: Path, target: Path) -> None:
    """The file or folder once more, by hard links where the file system has them."""
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, copy_function=_link_file)
        else:
            _link_file(str(source), str(target))


def _link_file(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
