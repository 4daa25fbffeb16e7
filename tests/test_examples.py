"""Every example runs, and every recipe is valid."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.recipe import load_recipe

EXAMPLES = Path(__file__).parents[1] / "examples"
NEEDS = {"prepare_for_trl.py": "trl", "evaluate_in_memory.py": "torch"}
SAYS = {"prepare_for_trl.py": "loss", "evaluate_in_memory.py": "FAIL"}


@pytest.mark.slow
@pytest.mark.parametrize("example", sorted(p.name for p in EXAMPLES.glob("*.py")))
def test_examples_run(example, tmp_path):
    pytest.importorskip(NEEDS[example])
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / example)], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert SAYS[example] in done.stdout


@pytest.mark.parametrize("recipe", sorted(p.name for p in (EXAMPLES / "recipes").glob("*.yaml")))
def test_recipes_are_valid(recipe):
    load_recipe(EXAMPLES / "recipes" / recipe)


def test_the_public_names_are_a_decided_list():
    import holdfast

    assert holdfast.__all__ == [
        "HoldfastError", "Recipe", "compare", "evaluate", "load_recipe", "open_rows", "prepare",
        "run",
    ]  # fmt: skip
    for name in holdfast.__all__:
        assert getattr(holdfast, name).__doc__
    with pytest.raises(AttributeError):
        holdfast.nothing  # noqa: B018
