"""The error tree. A `HoldfastError` is the user's situation: shown as one message, no traceback.

    HoldfastError            exit code 2
    ├── RecipeError          the recipe, or an option on the command line
    ├── DataError            a file of rows, labels or answers
    ├── MaterialError        something a run needs is not here (probes, safety rows, an extra)
    ├── ModelError           a model folder, tokenizer or chat template
    ├── IncomparableError    two evaluations that may not be compared
    ├── AuditFailed          a finding as severe as the user wants to stop at (exit code 1)
    └── StorageError         a folder that cannot be written, a full disk

Every message names the value, what was expected, and the cure. Anything else that escapes is a bug
(exit code 4).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HoldfastError(Exception):
    """Base of all errors whose cure is in the user's hands."""

    exit_code = 2


class RecipeError(HoldfastError):
    """An unknown key, a value out of range, two settings that exclude each other."""


class DataError(HoldfastError):
    """A data file that cannot be read as rows."""


class MaterialError(HoldfastError):
    """Probes, safety rows, weights or an optional package that are not at hand."""


class ModelError(HoldfastError):
    """A model that cannot be loaded, or a template that cannot be trusted with labels."""


class IncomparableError(HoldfastError):
    """Two evaluations that differ in more than the model."""


class AuditFailed(HoldfastError):
    """A finding at or above the severity that the recipe or command stops at."""

    exit_code = 1


class StorageError(HoldfastError):
    """A place that cannot be written."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the nearest known one, else the list of all, else nothing."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"Did you mean {near[0]!r}?"
    return f"Known: {', '.join(names)}." if names else ""
