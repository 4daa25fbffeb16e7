"""Calibrate: labels by people → how good the judge is, and what it missed, in `calibration.json`.

    frame (what gates) → labels → per arm: confusion, κ, sensitivity, specificity
                                → per gating cell and arm: the corrected rate and change

Nothing here decides: the gate's rule stays as it is, and the corrected figures stand beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from holdfast.files import plain, sha256_file, write_json
from holdfast.measuring.evaluation import CellKey, bad_outcome
from holdfast.measuring.labelling import (
    Frame,
    Labels,
    StratumKey,
    Unit,
    read_frame,
    read_labels,
)
from holdfast.statistics.calibration import Estimate, Reading, confusion, corrected, kappa, share
from holdfast.types import SIDE_OF, Verdict

FILE = "calibration.json"
LEVEL = 0.95
"""Of the agreement; changes are given at the gate's level."""

Signed = list[tuple[StratumKey, float]]
"""Strata of one item's answers, each with its sign in a change."""


def calibrate(folder: Path, labels: Path) -> dict[str, Any]:
    """Measure the judge of a folder against labels, and store it there as `calibration.json`.

    Args:
        folder: a run folder or an evaluation folder.
        labels: the file that `write_sample` wrote, filled in.

    Raises:
        DataError: a folder, a file or a line that cannot be used; names the line.
    """
    frame, comparison = read_frame(folder)
    read = read_labels(labels, frame)
    found = measure(frame, read, comparison)
    found["labels"] = {"file": labels.name, "sha256": sha256_file(labels), **found["labels"]}
    write_json(folder / FILE, found)
    return found


def measure(frame: Frame, labels: Labels, comparison: Mapping[str, Any] | None) -> dict[str, Any]:
    """The calibration as stored.

    Returns:
        `arms`: per arm and side the judge against people; `rates`: per arm and cell, as judged and
        corrected; `changes` and `control_changes`: the same for paired changes of gating cells;
        `pooled` and `control_pooled`: of all gating cells of a side together.
    """
    level = 2 * float((comparison or {}).get("gate", {}).get("level", 0.95)) - 1
    control = (comparison or {}).get("control")
    return {
        "fingerprints": frame.fingerprints,
        "judges": {arm: dict(e.versions()) for arm, e in frame.arms.items()},
        "labels": {"given": len(labels.given), "empty": labels.empty, "gone": labels.gone},
        "arms": list(_agreement(frame, labels)),
        "level": level,
        "rates": list(_rates(frame, labels)),
        "changes": list(_changes(frame, labels, comparison, "after", level)),
        "pooled": list(_pooled(frame, labels, comparison, "after", level)),
        "control_changes": list(_changes(frame, labels, control, "control", level)),
        "control_pooled": list(_pooled(frame, labels, control, "control", level)),
    }


# --- the judge against people ---------------------------------------------------------------------


def _agreement(frame: Frame, labels: Labels) -> Iterator[dict[str, Any]]:
    groups: dict[tuple[str, str], list[Unit]] = {}
    for unit in frame.units:
        if unit.id in labels.given:
            groups.setdefault((unit.arm, SIDE_OF[unit.attempt.expects]), []).append(unit)
    arms = list(frame.arms)
    for (arm, side), units in sorted(groups.items(), key=lambda g: (arms.index(g[0][0]), g[0][1])):
        yield {"arm": arm, "side": side, "n": len(units), **plain(_against(units, labels))}


def _against(units: list[Unit], labels: Labels) -> dict[str, Any]:
    """Confusion, κ over the labels, and the judge as a detector of the side's event.

    An answer that the judge left unscored is missed on both sides.
    """
    readings, caught, cleared = [], [], []
    for unit in units:
        person, weight = labels.given[unit.id], 1 / labels.probability[unit.id]
        readings.append(Reading(unit.label, person, weight))
        judged = bad_outcome(unit.attempt.expects, Verdict("", "", "", unit.label))
        if unit.event(person):
            caught.append((judged == 1.0, weight))
        else:
            cleared.append((judged == 0.0, weight))
    return {
        "confusion": confusion(readings),
        "kappa": kappa(readings, LEVEL),
        "sensitivity": _share(caught),
        "specificity": _share(cleared),
    }


def _share(found: list[tuple[bool, float]]) -> Estimate:
    return share([hit for hit, _ in found], [weight for _, weight in found], LEVEL)


# --- what it missed -------------------------------------------------------------------------------


def _rates(frame: Frame, labels: Labels) -> Iterator[dict[str, Any]]:
    strata = frame.strata(labels.given)
    cells: dict[tuple[str, CellKey], list[Unit]] = {}
    for unit in frame.units:
        cells.setdefault((unit.arm, unit.cell), []).append(unit)
    for (arm, cell), units in sorted(cells.items()):
        judged = [bad_outcome(u.attempt.expects, Verdict("", "", "", u.label)) for u in units]
        scored = [outcome for outcome in judged if outcome is not None]
        yield {
            "arm": arm,
            **_names(cell),
            "n": len(units),
            "judged": sum(scored) / len(scored) if scored else None,
            "corrected": plain(corrected([[(u.stratum, 1.0)] for u in units], strata, LEVEL)),
        }


def _changes(
    frame: Frame,
    labels: Labels,
    comparison: Mapping[str, Any] | None,
    arm: str,
    level: float,
) -> Iterator[dict[str, Any]]:
    """The corrected change of every gating cell that people could judge."""
    strata = frame.strata(labels.given)
    pairs = _pairs(frame, arm)
    for cell in (comparison or {}).get("cells", ()):
        key = _key(cell)
        if cell["gates"] and key in pairs:
            yield {
                "side": cell["side"],
                **_names(key),
                "n": len(pairs[key]),
                "judged": {k: cell[k] for k in ("change", "low", "high")},
                "corrected": plain(corrected(list(pairs[key].values()), strata, level)),
            }


def _pooled(
    frame: Frame,
    labels: Labels,
    comparison: Mapping[str, Any] | None,
    arm: str,
    level: float,
) -> Iterator[dict[str, Any]]:
    """The corrected change of all gating cells of a side together: it has the most labels.

    Answers to one item in several cells hang together, so an item's mean over its cells is one.
    """
    strata = frame.strata(labels.given)
    pairs = _pairs(frame, arm)
    cells = [c for c in (comparison or {}).get("cells", ()) if c["gates"]]
    for side in dict.fromkeys(c["side"] for c in cells):
        mine = [c for c in cells if c["side"] == side and _key(c) in pairs]
        items: dict[tuple[str, str], list[Signed]] = {}
        for cell in mine:
            for (item, _), signed in pairs[_key(cell)].items():
                items.setdefault((cell["task"], item), []).append(signed)
        if items:
            means = [
                [(k, s / len(all_)) for one in all_ for k, s in one] for all_ in items.values()
            ]
            judged = [(c["change"], c["n"]) for c in mine if c["n"]]
            n = sum(count for _, count in judged)
            yield {
                "side": side,
                "cells": len(mine),
                "n": len(items),
                "judged": sum(change * count for change, count in judged) / n if n else None,
                "corrected": plain(corrected(means, strata, level)),
            }


def _pairs(frame: Frame, arm: str) -> dict[CellKey, dict[tuple[str, str], Signed]]:
    """Cell → for every item and attempt of both arms, the strata of its two answers, signed."""
    before = {u.attempt.id: u for u in frame.units if u.arm == "before"}
    pairs: dict[CellKey, dict[tuple[str, str], Signed]] = {}
    for unit in frame.units:
        earlier = before.get(unit.attempt.id)
        if unit.arm == arm and earlier is not None:
            signed = [(unit.stratum, 1.0), (earlier.stratum, -1.0)]
            pairs.setdefault(unit.cell, {})[unit.attempt.item, unit.attempt.id] = signed
    return pairs


def _key(cell: Mapping[str, Any]) -> CellKey:
    return cell["task"], cell["attack"], cell["surface"]


def _names(cell: CellKey) -> dict[str, str]:
    return dict(zip(("task", "attack", "surface"), cell, strict=True))


def left_out(found: Mapping[str, Any]) -> str:
    """Which drawn answers do not count, in words; empty where all do."""
    rows = found["labels"]
    parts = [f"{rows['empty']:,} rows without a label"] * bool(rows["empty"])
    parts += [f"{rows['gone']:,} rows no longer in the file"] * bool(rows["gone"])
    return " and ".join(parts)


# --- for the terminal -----------------------------------------------------------------------------


def table(found: Mapping[str, Any]) -> Table:
    """The judge against people, arm by arm."""
    shown = _table("The judge against people", ("arm", "side"))
    for column in ("labels", "κ", "sensitivity, %", "specificity, %"):
        shown.add_column(column, justify="right", no_wrap=True)
    for row in found["arms"]:
        figures = [told(row["kappa"], 1, 2), told(row["sensitivity"]), told(row["specificity"])]
        shown.add_row(row["arm"], row["side"], f"{row['n']:,}", *figures)
    return shown


def changes(found: Mapping[str, Any]) -> Table:
    """Changes as judged and as people would have counted them, in points."""
    shown = _table("Change in points: as judged, and corrected", ("arm", "side", "cell"))
    for column in ("judged", "corrected"):
        shown.add_column(column, justify="right", no_wrap=True)
    for arm, prefix in (("after", ""), ("control", "control_")):
        for row in found[f"{prefix}changes"]:
            shown.add_row(
                arm, row["side"], f"{row['task']} {row['surface']}",
                _points(row["judged"]["change"]), told(row["corrected"]),
            )  # fmt: skip
        for row in found[f"{prefix}pooled"]:
            shown.add_row(
                arm, row["side"], "all its gating cells",
                _points(row["judged"]), told(row["corrected"]),
            )  # fmt: skip
    return shown


def _table(title: str, names: Sequence[str]) -> Table:
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in names:
        shown.add_column(name, overflow="fold")
    return shown


def _points(change: float | None) -> str:
    return "–" if change is None else f"{100 * change:+.1f}"


def told(estimate: Mapping[str, Any], scale: float = 100, digits: int = 1) -> str:
    """An estimate with its interval, as `91.2 (84.0 to 95.5)`."""
    if estimate["value"] is None:
        return "–"
    value, low, high = (scale * estimate[k] for k in ("value", "low", "high"))
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
