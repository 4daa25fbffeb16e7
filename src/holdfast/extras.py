"""Optional packages, each named with the extra that brings it when something needs it."""

from __future__ import annotations

import importlib.util

from holdfast.errors import MaterialError


def have(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


def need(package: str, *, extra: str, purpose: str) -> None:
    """Check that an optional package is there.

    Raises:
        MaterialError: it is not; names the extra.
    """
    if not have(package):
        raise MaterialError(
            f"{purpose[:1].upper()}{purpose[1:]} needs the package `{package}`: "
            f"pip install 'holdfast[{extra}]'"
        )
