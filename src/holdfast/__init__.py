"""Holdfast keeps a language model's refusals fastened while it is fine-tuned, and proves it.

The public names below are what notebooks use; the rest of the package serves the commands.

    types, errors, recipe ← statistics, rows, rendering, measuring ← shelves
          ← stages ← job ← sweep, reproduce ← commands
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.api import compare, evaluate, prepare
    from holdfast.errors import HoldfastError
    from holdfast.job.pipeline import run
    from holdfast.recipe import Recipe, load_recipe
    from holdfast.rows.load import open_rows

__version__ = "0.1.0"

_HOME = {
    "HoldfastError": "errors",
    "Recipe": "recipe",
    "compare": "api",
    "evaluate": "api",
    "load_recipe": "recipe",
    "open_rows": "rows.load",
    "prepare": "api",
    "run": "job.pipeline",
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
