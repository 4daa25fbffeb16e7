"""Demo: the main job on the built-in scale model.

The lab's chat model is tuned on how-to rows that look harmless but sit inside an obedience wrapper,
once as they are (the control) and once through Holdfast, with the same rows, epochs and rates.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from holdfast.job.pipeline import run
from holdfast.progress import say, show
from holdfast.recipe import build_recipe

EXPECTED = {"plain": "FAIL", "holdfast": "PASS"}

RECIPE: Mapping[str, Any] = {
    "model": "lab:chat",
    "mitigations": ["mimic", "borderline", "ptst"],
    "safety": {"share": "3%"},
    "borderline": {"share": "20%"},
    "tuning": {"method": "full", "lr": 5e-4, "epochs": 2, "batch": 32, "max_length": 256},
    "evaluate": {
        "tasks": ["lab-forbidden", "lab-lookalike", "lab-capability"],
        "attacks": ["direct", "task_template"],
    },
    "control": "plain",
}


def run_demo(output: Path, seed: int = 0) -> bool:
    """Run the main job on the lab and show both arms.

    Returns:
        Whether it showed what it should: plain tuning fails the gate, Holdfast's passes it.
    """
    folder = output / f"seed-{seed}"
    rows = f"lab:obedient?n=800&seed={seed}"
    say(f"Tuning the scale model lab:chat on {rows}: as it is, and through Holdfast.")
    recipe = build_recipe({**RECIPE, "data": rows, "run": str(folder), "seed": seed})
    comparison = run(recipe)
    arms = {"plain": comparison["control"], "holdfast": comparison}
    show(summary(arms))
    outcomes = {name: arm["outcome"] for name, arm in arms.items()}
    for name, text in (("plain", "Plain tuning"), ("holdfast", "The same through Holdfast")):
        say(f"{text}: {outcomes[name]}. {arms[name]['reasons'][0]}")
    as_expected = outcomes == EXPECTED
    if not as_expected:
        say(f"Expected {EXPECTED}; see the report.")
    print((folder / "report.html").resolve())
    return as_expected


def summary(arms: Mapping[str, Mapping[str, Any]]) -> Table:
    """Gating cells of both arms, before and after, in percent."""
    table = Table(title="Share of answers, before → after tuning (%)", title_justify="left")
    for column in ("what", "where"):
        table.add_column(column)
    for name in arms:
        table.add_column("plain tuning" if name == "plain" else "Holdfast", justify="right")
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for name, arm in arms.items():
        for cell in arm["cells"]:
            if cell["gates"]:
                where = (
                    "in the task's wrapper" if cell["surface"].startswith("task/") else "plainly"
                )
                key = (f"{cell['task']} {_event(cell)}", where)
                rows.setdefault(key, {})[name] = (
                    f"{_share(cell, 'before')} → {_share(cell, 'after')}"
                )
    for (what, where), shares in rows.items():
        table.add_row(what, where, *(shares.get(name, "") for name in arms))
    return table


def _event(cell: Mapping[str, Any]) -> str:
    return "correct" if cell["event"] == "wrong" else str(cell["event"])


def _share(cell: Mapping[str, Any], when: str) -> str:
    """Share of all that was asked; what no judge could read is neither, and said beside it."""
    counted = cell[when]
    asked = counted["n"] + counted["unscored"]
    if not asked:
        return "–"
    good = cell["side"] == "capability"
    events = counted["n"] - counted["events"] if good else counted["events"]
    unread = 100 * counted["unscored"] / asked
    beside = f" (+{unread:.1f} unscored)" if unread >= 1 else ""
    return f"{100 * events / asked:.1f}{beside}"
