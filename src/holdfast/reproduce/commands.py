"""`holdfast reproduce` as it is typed: which claims, on what, and the ledger at its end."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table as RichTable
from rich.text import Text

from holdfast.claims import CLAIMS, PAPERS, Arm, claim
from holdfast.errors import RecipeError, did_you_mean
from holdfast.processes.workers import cores
from holdfast.progress import say, show
from holdfast.reproduce.ledger import Origin, write_ledger
from holdfast.reproduce.orders import readings_of
from holdfast.reproduce.recipes import Recipes
from holdfast.reproduce.sentences import effect_text, failed_controls, lead, verdict_text
from holdfast.reproduce.study import LOOKS, Study, check_looks, run
from holdfast.sweep.axes import read_seeds

EXIT_OF_FAILED_CONTROL = 1


@dataclass(frozen=True)
class Wanted:
    """The options of `holdfast reproduce`, as typed."""

    what: tuple[str, ...] = ()
    """Claims, and `KEY=VALUE` settings over the base recipes."""
    paper: str | None = None
    seeds: str | None = None
    most: int = LOOKS[-1]
    jobs: int | None = None
    recipes: Path | None = None
    ledger: Path | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Claims by name."""
        return tuple(text for text in self.what if "=" not in text)

    @property
    def overrides(self) -> tuple[str, ...]:
        """Settings."""
        return tuple(text for text in self.what if "=" in text)


def reproduce_command(wanted: Wanted, output: Path) -> tuple[int, Path]:
    """Re-measure claims and write the ledger.

    Returns:
        The exit code (0 done, 1 a control failed) and the page.

    Raises:
        RecipeError: an unknown claim, paper or setting.
        HoldfastError: anything that stops every arm.
    """
    chosen = choose(wanted.names, wanted.paper)
    recipes = Recipes(wanted.recipes, wanted.overrides)
    seeds, looks = check_looks(
        read_seeds(wanted.seeds, 0) if wanted.seeds else None, wanted.most
    )  # fmt: skip
    claims = {name: claim(name) for name in chosen}
    arms = [reading.arm for one in claims.values() for reading in readings_of(one)]
    jobs, threads = _shares(recipes, arms, wanted.jobs)
    study = Study(claims, recipes, output, seeds, looks, jobs, threads)
    judged = run(study)
    ledger, page = write_ledger(judged, _origin(wanted, looks), output, wanted.ledger)
    _tell(ledger)
    return EXIT_OF_FAILED_CONTROL if failed_controls(ledger) else 0, page


def choose(names: Sequence[str], paper: str | None) -> list[str]:
    """Claims by name or paper, in the order of the shelf, controls last; all where none is named.

    Raises:
        RecipeError: an unknown claim or paper, or both given.
    """
    for name in names:
        claim(name)  # an unknown name, with the nearest known one
    if paper is not None and paper not in PAPERS:
        raise RecipeError(f"Unknown paper {paper!r}. {did_you_mean(paper, PAPERS)}")
    if names and paper:
        raise RecipeError("Name claims, or give --paper, not both.")
    wanted = {name.lower() for name in names}
    return [
        name
        for name in ordered()
        if (not wanted or name.lower() in wanted) and (paper is None or claim(name).paper == paper)
    ]


def ordered() -> list[str]:
    """All claims by name, controls last."""
    return sorted(CLAIMS, key=lambda name: bool(claim(name).passes))


def listing() -> str:
    """Every claim with its paper and the paper's figure, for `--list`."""
    lines = []
    for name in ordered():
        one = claim(name)
        marks = "".join(f"[{mark}]" for mark in one.marks)
        told = "" if one.passes else f" ({one.figure or 'direction only'} {marks})"
        lines.append(f"{name:12} {one.paper:12} {CLAIMS.summary(name)}{told}")
    return "\n".join(lines)


def _shares(recipes: Recipes, arms: Sequence[Arm], jobs: int | None) -> tuple[int, int]:
    """Processes, and threads of each: together no more than the cores.

    The scale model is fastest, and gives the same bytes on any machine, on one thread; a larger one
    has all cores to itself unless more jobs are asked for.
    """
    lab = all(recipes.recipe(arm, 0).model.startswith("lab:") for arm in arms)
    if lab:
        return jobs or cores(), 1
    return jobs or 1, max(1, cores() // (jobs or 1))


def _origin(wanted: Wanted, looks: tuple[int, ...]) -> Origin:
    options = [*wanted.overrides]
    if wanted.recipes:
        options += ["--recipes", str(wanted.recipes)]
    if wanted.seeds:
        options += ["--seeds", wanted.seeds]
    elif wanted.most != LOOKS[-1]:
        options += ["--most", str(wanted.most)]
    chosen = [*wanted.names, *(["--paper", wanted.paper] if wanted.paper else [])]
    typed = shlex.join(["holdfast", "reproduce", *chosen, *options])
    row = shlex.join(options).replace("{", "{{").replace("}", "}}")
    return Origin(typed, f"holdfast reproduce {{claim}} {row}".rstrip(), looks)


def _tell(ledger: dict[str, Any]) -> None:
    table = RichTable(title="A minus B in points (95 % interval over seeds)", title_justify="left")
    for number, column in enumerate(("", "of", "effect", "seeds", "verdict")):
        table.add_column(column, justify="right" if number in (2, 3) else "left", overflow="fold")
    for one in ledger["claims"]:
        for number, part in enumerate(one["parts"]):
            last = (str(len(one["seeds"])), verdict_text(one)) if not number else ("", "")
            cells = (one["id"] if not number else "", part["name"], effect_text(part), *last)
            table.add_row(*map(Text, cells))
    show(table)
    for line in failed_controls(ledger):
        say(f"✗ {line}")
    say(lead(ledger))
