"""The judge against people, where somebody labelled a sample: agreement and corrected changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.measuring.evaluation import CellKey
from holdfast.report import words
from holdfast.report.material import Material


def against(material: Material) -> list[tuple[str, ...]]:
    """Arm, side, labels, κ, sensitivity and specificity of the judge that gates."""
    return [
        (
            str(row["arm"]),
            words.SIDES.get(row["side"], row["side"]),
            words.number(row["n"]),
            _plain(row["kappa"]),
            _percent(row["sensitivity"]),
            _percent(row["specificity"]),
        )
        for row in material.calibration.get("arms", ())
    ]


def changes(material: Material) -> dict[CellKey, str]:
    """Cell → its change as people would have counted it, in points with its interval."""
    return {
        (row["task"], row["attack"], row["surface"]): _points(row["corrected"])
        for row in material.calibration.get("changes", ())
    }


def pooled(material: Material) -> list[tuple[str, ...]]:
    """Side, its gating cells, and their change together: as judged, and corrected."""
    return [
        (
            words.SIDES.get(row["side"], row["side"]),
            words.number(row["cells"]),
            words.points(row["judged"]),
            _points(row["corrected"]),
        )
        for row in material.calibration.get("pooled", ())
    ]


def left_out(material: Material) -> str:
    """How many labels there are, and which drawn answers have none."""
    labels = material.calibration.get("labels")
    if not labels:
        return ""
    told = f"{words.plural(labels['given'], 'answer')} labelled"
    missing = labels["empty"] + labels["gone"]
    return told + (f"; {missing:,} drawn answers have no label and are left out" if missing else "")


def _points(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return words.NOTHING
    ends = words.between(words.points(found["low"]), words.points(found["high"]))
    return f"{words.points(found['value'])} ({ends})"


def _percent(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return words.NOTHING
    return f"{words.percent(found['value'])} ({100 * found['low']:.1f}–{100 * found['high']:.1f})"


def _plain(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return words.NOTHING
    ends = words.between(words.decimal(found["low"]), words.decimal(found["high"]))
    return f"{words.decimal(found['value'])} ({ends})"
