"""Recipes of arms: a base recipe, the user's settings over it, the claim's over those, a seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from holdfast.claims import Arm
from holdfast.errors import RecipeError, did_you_mean
from holdfast.files import digest
from holdfast.recipe import Recipe, build_recipe, read_values

SEED = "{seed}"
"""Stands for the training seed in a setting."""

FIXED = ("evaluate.sequential=false", "evaluate.noise=0", "control=null")
"""Levels are compared, so everything is asked; what an arm is compared with is another arm."""


@dataclass(frozen=True)
class Recipes:
    """Where base recipes come from, and what the user sets in all of them."""

    folder: Path | None = None
    """The user's base recipes, found before ours of the same name."""
    overrides: tuple[str, ...] = ()
    """`key.subkey=value` over every base recipe; a claim's own settings go over them."""
    _names: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    def recipe(self, arm: Arm, seed: int, run: Path | str = "unused") -> Recipe:
        """An arm's recipe at a seed.

        Raises:
            RecipeError: no such base recipe, an unknown key, a trainer that is not ours.
        """
        at = seed + arm.seeds_from
        path = self._path(arm.recipe)
        values = _seeded(read_values(path), at)
        settings = [f"{key}={json.dumps(_seeded(v, at))}" for key, v in arm.settings.items()]
        users = [text.replace(SEED, str(at)) for text in self.overrides]
        own = [*FIXED, f"seed={at}", f"run={run}"]
        recipe = build_recipe(values, [*users, *settings, *own], where=path.name)
        if recipe.train.with_ != "holdfast":
            raise RecipeError(
                f"`train.with` is {recipe.train.with_!r}, and a claim's arms are trained here. "
                "Take it away."
            )
        return recipe

    def name(self, arm: Arm, seed: int) -> str:
        """The arm's folder at a seed: readable, and equal where the recipes are equal."""
        key = digest(arm, seed)
        if key not in self._names:
            read = self.recipe(arm, seed)
            tuned = "tuned" if arm.tuned else "untouched"
            hashed = digest(read, arm.tuned)[:10]
            self._names[key] = f"{arm.recipe}-{tuned}-{hashed}-seed-{read.seed}"
        return self._names[key]

    def _path(self, name: str) -> Path:
        ours = Path(str(files("holdfast.claims"))) / "recipes"
        theirs = [self.folder] if self.folder else []
        for folder in (*theirs, ours):
            if (folder / f"{name}.yaml").is_file():
                return folder / f"{name}.yaml"
        known = [path.stem for folder in (*theirs, ours) for path in folder.glob("*.yaml")]
        raise RecipeError(f"There is no base recipe {name!r}. {did_you_mean(name, known)}")


def _seeded(value: Any, seed: int) -> Any:
    """The value with `{seed}` filled in wherever it stands in a text."""
    if isinstance(value, str):
        return value.replace(SEED, str(seed))
    if isinstance(value, Mapping):
        return {key: _seeded(one, seed) for key, one in value.items()}
    if isinstance(value, Sequence):
        return [_seeded(one, seed) for one in value]
    return value
