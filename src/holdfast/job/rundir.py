"""The run folder: which stages are done and for which inputs, a lock, a manifest, a log.

A stage's key is a hash of everything it depends on. A finished stage with the same key is not run
again; an unfinished one with the same key goes on where it stopped; a stage with another key starts
over. Times and machine facts go to `log.jsonl` and nowhere else, so that the artefacts of two runs
can be compared byte for byte.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from holdfast.errors import StorageError
from holdfast.files import (
    append_jsonl,
    make_folder,
    plain,
    read_json,
    remove_torn,
    write_json,
    write_text,
)
from holdfast.processes.launch import HOLDER, current
from holdfast.progress import say

POLL_S = 0.2
"""Between two looks of a following process at how far the leading one is."""


class StageStore(Protocol):
    """Finished stages that several runs share, found by what their keys say of their inputs."""

    def take(self, name: str, key: str, outputs: Sequence[str], run: Path) -> dict[str, Any] | None:
        """Put a stage's outputs into a run folder and return its facts; None: not here."""
        ...

    def keep(
        self, name: str, key: str, outputs: Sequence[str], run: Path, facts: Mapping[str, Any]
    ) -> None:
        """Remember a finished stage of a run."""
        ...

    def lasting(self, name: str) -> Path:
        """Where a file lies that outlives stages and is shared by all runs."""
        ...


class RunFolder:
    """A folder with the artefacts of one run."""

    def __init__(self, path: Path, store: StageStore | None = None) -> None:
        self.path = path
        self.store = store
        self._ran: dict[str, tuple[str, dict[str, Any]]] = {}
        """Stages that this process has run or found done: name → key, facts."""

    @contextmanager
    def opened(self) -> Iterator[RunFolder]:
        """Create the folder, keep it out of git, and hold it against a second run.

        Of processes that a launcher started together the leading one holds it for all.

        Raises:
            StorageError: it cannot be written, or another run is at work in it.
        """
        if not current().leads:
            yield self
            return
        make_folder(self.path)
        self._ignore()
        with (self.path / ".lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.seek(0)
                if lock.read() != os.environ.get(HOLDER, "nobody"):
                    raise StorageError(
                        f"Another holdfast is at work in {self.path}. Wait for it, or choose "
                        "another `run:` folder."
                    ) from None
                yield self  # held for us by the process that started us
                return
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            remove_torn(self.path)
            yield self

    def _ignore(self) -> None:
        # Runs hold harmful text and weights; neither belongs into a repository.
        where = self.path.parent if self.path.parent.name == "runs" else self.path
        if not (where / ".gitignore").exists():
            write_text(where / ".gitignore", "*\n")

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def lasting(self, name: str) -> Path:
        """Where a file lies that outlives a change of the stage which fills it."""
        return self / name if self.store is None else self.store.lasting(name)

    def stage(
        self,
        name: str,
        key: str,
        work: Callable[[], Mapping[str, Any]],
        *,
        outputs: Sequence[str],
        label: str,
        shared: bool = False,
    ) -> dict[str, Any]:
        """Run a stage unless it is done for these inputs, and return its facts.

        Args:
            name: of the stage, in the state file.
            key: hash of all its inputs.
            work: does it; writes `outputs` and returns small facts for later stages.
            outputs: files and folders of the stage, relative to the run.
            label: what the terminal says.
            shared: whether all processes of a launch work on it; else the leading one does, and
                the others wait for what it finds.
        """
        if name in self._ran and self._ran[name][0] == key:
            return self._ran[name][1]
        if current().leads:
            facts = self._stage(name, key, work, outputs, label)
        else:
            facts = self._followed(name, key, work if shared else None, outputs)
        self._ran[name] = (key, facts)
        return facts

    def _stage(
        self,
        name: str,
        key: str,
        work: Callable[[], Mapping[str, Any]],
        outputs: Sequence[str],
        label: str,
    ) -> dict[str, Any]:
        state = self._state()
        entry = state.get(name, {})
        same = entry.get("key") == key
        if same and entry.get("done") and all((self / o).exists() for o in outputs):
            say(f"· {label}: unchanged")
            return dict(entry["facts"])
        if not same:
            self._remove(outputs)
        self._write_state({**state, name: {"key": key, "done": False, "facts": {}}})
        facts = self._taken(name, key, outputs)
        if facts is not None:
            say(f"· {label}: as in another run")
        else:
            say(f"· {label}")
            facts = self._worked(name, work)
            if self.store is not None:
                self.store.keep(name, key, outputs, self.path, facts)
        self._write_state({**self._state(), name: {"key": key, "done": True, "facts": facts}})
        return self.facts(name)  # as a resumed run will read them

    def facts(self, name: str) -> dict[str, Any]:
        """What a finished stage found.

        Raises:
            KeyError: it never ran.
        """
        return dict(self._state()[name]["facts"])

    def _followed(
        self,
        name: str,
        key: str,
        work: Callable[[], Mapping[str, Any]] | None,
        outputs: Sequence[str],
    ) -> dict[str, Any]:
        """What the leading process found; `work` is done beside it, once it has begun."""
        while True:
            state = self._state()
            entry = state.get(name, {})
            if entry.get("key") == key:
                if entry["done"] and all((self / o).exists() for o in outputs):
                    return dict(entry["facts"])
                if work is not None:
                    return dict(work())
            time.sleep(POLL_S)

    def _taken(self, name: str, key: str, outputs: Sequence[str]) -> dict[str, Any] | None:
        """A stage's facts from the store, its outputs put in place; None: to be worked on."""
        if self.store is None:
            return None
        facts = self.store.take(name, key, outputs, self.path)
        if facts is not None:
            self.log(name, "shared")
        return facts

    def _worked(self, name: str, work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        started = time.monotonic()
        self.log(name, "started")
        facts: dict[str, Any] = plain(dict(work()))
        self.log(name, "finished", seconds=round(time.monotonic() - started, 3))
        return facts

    def log(self, stage: str, event: str, **more: Any) -> None:
        """One line with the time, outside the compared artefacts."""
        row = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "stage": stage, "event": event, **more}
        append_jsonl(self / "log.jsonl", [row])

    def _remove(self, outputs: Sequence[str]) -> None:
        for output in outputs:
            path = self / output
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _state(self) -> dict[str, Any]:
        path = self / "stages.json"
        state: dict[str, Any] = read_json(path) if path.exists() else {}
        return state

    def _write_state(self, state: Mapping[str, Any]) -> None:
        write_json(self / "stages.json", state)
