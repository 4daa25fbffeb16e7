"""Report: a run folder → `report.html`, `report.md`, `report.json`, `report.junit.xml`.

    from holdfast.stages.report import write_report
    write_report(Path("runs/support"))["html"]     # the page

Works with whatever is in the folder, so that a run can be looked at before it is finished.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast import __version__
from holdfast.files import make_folder, write_json, write_text
from holdfast.measuring.evaluation import Evaluation
from holdfast.report import agreement, attacks, positions, story
from holdfast.report.cells import views
from holdfast.report.junit import render_junit
from holdfast.report.markdown import render_markdown
from holdfast.report.material import Material, read_run
from holdfast.report.model_card import render_model_card
from holdfast.report.page import render_page
from holdfast.report.terminal import terminal_summary
from holdfast.report.verdict import banner

__all__ = ["report_comparison", "summary", "terminal_summary", "write_report"]


def write_report(run: Path, *, redact: bool = False, model_card: bool = False) -> dict[str, Path]:
    """Write the reports of a run folder.

    Args:
        run: the run folder, finished or not.
        redact: leave out of the page what models and benchmarks wrote.
        model_card: also write `model-card.md`, a section for the tuned model's card.

    Returns:
        `html`, `md`, `json` and `junit` (and `model_card`) → the files written.

    Raises:
        DataError: the folder holds nothing of a run.
        StorageError: it cannot be written.
    """
    material = read_run(run)
    paths = _write(material, run, redact=redact)
    if model_card:
        paths["model_card"] = run / "model-card.md"
        write_text(paths["model_card"], render_model_card(material))
    return paths


def report_comparison(
    comparison: Mapping[str, Any],
    before: Evaluation,
    after: Evaluation,
    output: Path,
    *,
    redact: bool = False,
) -> dict[str, Path]:
    """Write the reports of two evaluation folders that were compared without a run.

    Args:
        comparison: what `compare` returned.
        before: the untouched model's evaluation.
        after: the tuned model's.
        output: folder to write to.
        redact: leave out of the page what models and benchmarks wrote.

    Returns:
        `html`, `md`, `json`, `junit` and `model_card` → the files written.
    """
    name = f"{before.folder.name} → {after.folder.name}"
    material = Material(name, comparison=comparison, before=before, after=after)
    paths = _write(material, make_folder(output), redact=redact)
    paths["model_card"] = output / "model-card.md"
    write_text(paths["model_card"], render_model_card(material))
    return paths


def summary(material: Material) -> dict[str, Any]:
    """The machine-readable summary, as in `report.json`.

    `cells` are stored as the comparison has them: shares of the bad event, where more is worse.
    """
    comparison = material.comparison or {}
    arm = material.control_comparison
    cells = views(material.comparison, material.before, material.after)
    told = banner(material.comparison, cells, waiting=material.waiting)
    return {
        "version": __version__,
        "name": material.name,
        "outcome": comparison.get("outcome"),
        "waiting": dict(material.waiting) or None,
        "contract": comparison.get("contract"),
        "sentence": told.sentence,
        "reasons": list(comparison.get("reasons", ())),
        "refusal_before": comparison.get("refusal_before"),
        "gate": comparison.get("gate", {}),
        "cells": list(comparison.get("cells", ())),
        "by_attack": attacks.table_of_run(material),
        "not_run": comparison.get("not_run", {}),
        "sequential": comparison.get("sequential"),
        "agreement": agreement.stored(material),
        "calibration": dict(material.calibration) or None,
        "positions": positions.stored(material),
        "control": None if arm is None else _control(arm),
        "usage": [dict(zip(story.USAGE, row, strict=True)) for row in story.usage(material)],
        "files": list(material.files),
    }


def _control(arm: Mapping[str, Any]) -> dict[str, Any]:
    return {key: arm.get(key) for key in ("outcome", "reasons", "serving", "cells")}


def _write(material: Material, folder: Path, *, redact: bool) -> dict[str, Path]:
    paths = {kind: folder / f"report.{kind}" for kind in ("html", "md", "json")}
    paths["junit"] = folder / "report.junit.xml"
    write_text(paths["html"], render_page(material, redact=redact))
    write_text(paths["md"], render_markdown(material))
    write_json(paths["json"], summary(material))
    write_text(paths["junit"], render_junit(material))
    return paths
