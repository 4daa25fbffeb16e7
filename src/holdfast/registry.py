"""Shelves: name → factory, one idea per file, found by name, extended through entry points.

A shelf is a package folder. Each of its modules registers what it holds with the shelf's decorator;
modules are imported on first use, so that listing or reading one shelf never loads another, nor
torch. Other packages join by the entry-point group `holdfast.<shelf>`: the entry's name is the
thing's name, its value the factory.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from holdfast.errors import RecipeError, did_you_mean

T = TypeVar("T")


class Shelf(Generic[T]):
    """A named collection of factories that lives in one folder of the package."""

    def __init__(self, name: str) -> None:
        self.name = name
        """Folder and entry-point suffix, plural: `attacks`."""
        self._things: dict[str, T] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: put a factory on the shelf under `name`."""

        def put(thing: T) -> T:
            if name in self._things and self._things[name] is not thing:
                raise ValueError(f"{self.name}: {name!r} is registered twice")
            self._things[name] = thing
            return thing

        return put

    def get(self, name: str) -> T:
        """The factory called `name`.

        Raises:
            RecipeError: no such thing, with the nearest known name.
        """
        self._load()
        if name not in self._things:
            kind = self.name.removesuffix("s")
            raise RecipeError(f"Unknown {kind} {name!r}. {did_you_mean(name, self._things)}")
        return self._things[name]

    def names(self) -> list[str]:
        """All names on the shelf, sorted."""
        self._load()
        return sorted(self._things)

    def __contains__(self, name: str) -> bool:
        self._load()
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def summary(self, name: str) -> str:
        """First line of the thing's docstring: what `holdfast list` prints."""
        doc = inspect.getdoc(self.get(name)) or ""
        return doc.partition("\n")[0]

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        package = importlib.import_module(f"holdfast.{self.name}")
        names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
        for module in names:
            if module.startswith("_"):  # what several things of the shelf share
                continue
            importlib.import_module(f"holdfast.{self.name}.{module}")
        for entry in entry_points(group=f"holdfast.{self.name}"):
            self.register(entry.name)(entry.load())
