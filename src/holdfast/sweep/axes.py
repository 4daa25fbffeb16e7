"""Axes: which settings take which values, and the points a sweep visits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from holdfast.errors import RecipeError
from holdfast.files import digest

_SETTING = re.compile(r"\w+(\.\w+)*")
_OPEN, _CLOSE = "[{(", "]})"


@dataclass(frozen=True, slots=True)
class Axis:
    """A recipe setting and its values, as written."""

    setting: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """One value of every axis."""

    settings: tuple[tuple[str, str], ...]

    @property
    def overrides(self) -> list[str]:
        """As the recipe reader takes them."""
        return [f"{setting}={value}" for setting, value in self.settings]

    @property
    def label(self) -> str:
        """The values; with their settings where there are several."""
        if len(self.settings) == 1:
            return self.settings[0][1]
        return ", ".join(self.overrides)

    @property
    def slug(self) -> str:
        """A folder name: readable, and unique through a hash."""
        text = re.sub(r"[^\w.%=-]+", "_", "_".join(self.overrides)).strip("_")
        return f"{text[:60]}-{digest(self.overrides)[:6]}"

    @property
    def number(self) -> float | None:
        """The value as a number (a share for `3%`), where there is one axis and it is one."""
        if len(self.settings) != 1:
            return None
        text = self.settings[0][1].strip()
        try:
            return float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            return None


def read_axis(text: str) -> Axis:
    """`safety.share=0,1%,3%` as an axis; commas inside brackets belong to the value.

    Raises:
        RecipeError: no setting, no value, or a value twice.
    """
    setting, equals, values = text.partition("=")
    setting = setting.strip()
    found = tuple(value for value in _split(values) if value)
    if not equals or not _SETTING.fullmatch(setting) or not found:
        raise RecipeError(
            f"Cannot read the axis {text!r}: write it as key.subkey=value,value, such as "
            "safety.share=0,1%,3%."
        )
    twice = sorted({value for value in found if found.count(value) > 1})
    if twice:
        raise RecipeError(f"The axis {setting} has the value {twice[0]} twice. Name it once.")
    if setting in ("seed", "run"):
        cure = "`--seeds 0,1,2`" if setting == "seed" else "`--output DIR`"
        raise RecipeError(f"`{setting}` is no axis of a sweep. Use {cure}.")
    return Axis(setting, found)


def _split(text: str) -> list[str]:
    """Cut at commas outside brackets."""
    parts, depth = [""], 0
    for char in text:
        depth += (char in _OPEN) - (char in _CLOSE)
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]


def read_seeds(text: str | None, default: int) -> list[int]:
    """`0,1,2` as seeds; the recipe's own where none are given.

    Raises:
        RecipeError: something that is no seed, or a seed twice.
    """
    if text is None:
        return [default]
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts):
        raise RecipeError(f"Cannot read the seeds {text!r}: write them as 0,1,2.")
    seeds = [int(part) for part in parts]
    if len(set(seeds)) < len(seeds):
        raise RecipeError(f"The seeds {text} name one twice. A seed counts once.")
    return seeds


def points(axes: Sequence[Axis]) -> list[Point]:
    """Every combination of the axes' values, the first axis slowest.

    Raises:
        RecipeError: no axis, or a setting on two axes.
    """
    if not axes:
        raise RecipeError("A sweep needs something to vary: give --set safety.share=0,1%,3%.")
    names = [axis.setting for axis in axes]
    if len(set(names)) < len(names):
        raise RecipeError(f"A setting stands on two axes: {', '.join(names)}. Put it on one.")
    return [
        Point(tuple(zip(names, values, strict=True)))
        for values in product(*(axis.values for axis in axes))
    ]
