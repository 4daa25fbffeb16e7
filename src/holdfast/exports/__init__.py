"""The shelf of exports: a prepared mixture in the form another trainer reads.

    open the run → check that the format can express its rows → rows → configuration → README →
    manifest, written last

Token ids with labels express every mitigation. Formats of messages leave labels to their trainer,
so each declares what it can express, and rows that need more are an error, never a silent change.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from holdfast.errors import DataError, RecipeError
from holdfast.exports._material import Material, Split
from holdfast.exports._needs import NEEDS, Need, check_expressible
from holdfast.files import make_folder, read_object, sha256_file, write_json, write_text
from holdfast.registry import Shelf
from holdfast.rows.preference import is_pair
from holdfast.types import Conversation

MANIFEST = "manifest.json"
TEMPLATE = "chat_template.jinja"


@dataclass(frozen=True, slots=True)
class Export:
    """A training format."""

    version: str
    """The trainer, and the version whose documentation the files follow."""
    can: frozenset[Need]
    """What its rows express."""
    write: Callable[[Material, Path], Mapping[Split, int]]
    """Writes rows and configuration into a folder; split → rows."""
    start: str
    """The command that starts the trainer, in the export's folder."""
    rows: Callable[[Material], Iterator[Conversation]] | None = None
    """Rows whose needs count, prompting included; None: token ids, which express everything."""


EXPORTS: Shelf[Callable[[], Export]] = Shelf("exports")

EVERYTHING: frozenset[Need] = frozenset(NEEDS)


def export(folder: Path, kind: str, to: Path) -> Path:
    """Write a prepared run in a training format.

    Args:
        folder: a run folder that `holdfast prepare` has filled; it is only read.
        kind: a name on the shelf, such as `trl` or `openai`.
        to: the folder to write; files of an earlier export are replaced.

    Returns:
        The folder, with rows, configuration, `README.md` and `manifest.json`.

    Raises:
        RecipeError: no such format, or a folder that holds something else.
        DataError: no prepared run, or rows that the format cannot express.
        MaterialError: a package that writing needs.
    """
    made = EXPORTS.get(kind)()
    material = Material(folder)
    _refuse_pairs(kind, material)
    if made.rows is not None:
        _check(kind, made, material)
    _clear(make_folder(to))
    rows = made.write(material, to)
    write_text(to / "README.md", _readme(kind, made, material, rows))
    write_json(to / MANIFEST, _manifest(kind, made, material, rows, to))
    return to


def _clear(to: Path) -> None:
    """Take away an earlier export, its manifest first: without it, the folder is not whole.

    Raises:
        RecipeError: the folder holds something else that has a manifest, such as a run.
    """
    if not (to / MANIFEST).is_file():
        return
    about = read_object(to / MANIFEST).get("export")
    if not isinstance(about, dict):
        raise RecipeError(f"{to} is no export but has a {MANIFEST}. Name another folder.")
    (to / MANIFEST).unlink()
    for name in about.get("files", ()):
        if (to / name).resolve().is_relative_to(to.resolve()):
            (to / name).unlink(missing_ok=True)


def capability_table() -> str:
    """What each format expresses, as a Markdown table: a row for each format."""
    rows = [["format", *NEEDS], ["---"] * (1 + len(NEEDS))]
    for name in EXPORTS:
        can = EXPORTS.get(name)().can
        rows.append([f"`{name}`", *("yes" if need in can else "no" for need in NEEDS)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def write_config(path: Path, settings: Mapping[str, Any]) -> None:
    """A trainer's YAML file, keys in the order given."""
    text = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
    write_text(path, text)


def _refuse_pairs(kind: str, material: Material) -> None:
    pairs = sum(map(is_pair, material.conversations("train")))
    if pairs:
        raise DataError(
            f"The format {kind!r} cannot express this mixture: {pairs:,} of its rows are "
            "preference pairs (`dpo`), which are trained by their two answers, not by labels. Take "
            "`dpo` out of the recipe, or train with `train.with: holdfast`."
        )


def _check(kind: str, made: Export, material: Material) -> None:
    if not material.own_template and "chat template" not in made.can:
        raise DataError(
            f"The format {kind!r} cannot express `prompting.train.template` or "
            "`prompting.train.args`: its trainer knows only the model's own template. "
            f"{_cure({'chat template'}, made)}"
        )
    assert made.rows is not None
    check_expressible(kind, made.can, made.rows(material), lambda needs: _cure(needs, made))


def _cure(needs: Collection[Need], made: Export) -> str:
    """What to do where a format cannot express these needs."""
    able = [name for name in EXPORTS if EXPORTS.get(name)().can >= set(needs)]
    trainer = made.version.partition(" ")[0]
    same = [name for name in able if EXPORTS.get(name)().version.startswith(f"{trainer} ")]
    advice = f"Export to {' or '.join(same or able)}"
    if same:
        return f"{advice}."
    return f"{advice}, or take what needs it out of the recipe (`mitigations:`, `prompting.train`)."


def _readme(kind: str, made: Export, material: Material, rows: Mapping[Split, int]) -> str:
    """Three lines: what it is, how to start, how to come back."""
    counts = ", ".join(f"{n:,} {split}" for split, n in rows.items())
    return (
        f"{counts} rows of `{kind}`, written by Holdfast for {made.version}; hashes, sources and "
        f"licences stand in `{MANIFEST}`.\n"
        f"In this folder, start: `{made.start}`\n"
        f"Then evaluate what it made as you will serve it: `holdfast evaluate MODEL --output DIR`, "
        "and compare with the untouched model: `holdfast compare BEFORE AFTER`.\n"
    )


def _manifest(
    kind: str, made: Export, material: Material, rows: Mapping[Split, int], to: Path
) -> dict[str, Any]:
    """The run's manifest, and what was written from it."""
    files = sorted(p for p in to.rglob("*") if p.is_file() and not p.name.startswith("."))
    return {
        **material.manifest,
        "export": {
            "format": kind,
            "written_for": made.version,
            "rows": dict(rows),
            "prompting": material.prompting.fingerprint,
            "files": {str(path.relative_to(to)): sha256_file(path) for path in files},
        },
    }
