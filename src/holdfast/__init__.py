"""Holdfast keeps a language model's refusals fastened while it is fine-tuned, and proves it.

The public names below are what notebooks use; the rest of the package serves the commands.

    types, errors ← registry, recipe, stats ← load, audit, render, engines, shelves
          ← stages: prepare, train, evaluate, judge, compare, report ← pipeline ← cli
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.api import compare, evaluate, prepare
    from holdfast.errors import HoldfastError
    from holdfast.load import open_rows
    from holdfast.pipeline import run
    from holdfast.recipe import Recipe, load_recipe

__version__ = "0.1.0"

_HOME = {
    "HoldfastError": "errors",
    "Recipe": "recipe",
    "compare": "api",
    "evaluate": "api",
    "load_recipe": "recipe",
    "open_rows": "load",
    "prepare": "api",
    "run": "pipeline",
}

__all__ = [
    "HoldfastError",
    "Recipe",
    "compare",
    "evaluate",
    "load_recipe",
    "open_rows",
    "prepare",
    "run",
]


def __getattr__(name: str) -> Any:
    # Looked up on first use, so that `import holdfast` costs nothing.
    if name in _HOME:
        return getattr(importlib.import_module(f"holdfast.{_HOME[name]}"), name)
    raise AttributeError(f"module 'holdfast' has no attribute {name!r}")
