"""JUnit XML for continuous integration: one test case per gating cell.

A broken cell is a failure, an undecided one an error: both make a build red. A verdict that no cell
explains (a side that nothing measures) is a case of its own, so that no file is greener than the
verdict.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from holdfast.report import words
from holdfast.report.cells import CellView, gating, views
from holdfast.report.material import Material
from holdfast.report.verdict import Banner, banner

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot carry, not even as a reference."""
KINDS = {"broken": "failure", "undecided": "error"}


def render_junit(material: Material) -> str:
    """The gating cells as test cases; times stay out, as everywhere."""
    cells = views(material.comparison, material.before, material.after)
    told = banner(material.comparison, cells)
    cases = [_case(cell) for cell in gating(cells)]
    if told.outcome != "PASS" and not any(cell.state in KINDS for cell in gating(cells)):
        cases.append(_verdict(told))
    suite = ET.Element("testsuite", _attributes(f"Holdfast: {material.name}", cases))
    suite.extend(cases)
    root = ET.Element("testsuites", _attributes("Holdfast", cases))
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def text(value: str) -> str:
    """Text that XML can carry; escaping is the writer's."""
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", words.clean(value))


def _attributes(name: str, cases: Sequence[ET.Element]) -> dict[str, str]:
    counts = {kind: sum(case.find(kind) is not None for case in cases) for kind in KINDS.values()}
    return {
        "name": text(name),
        "tests": str(len(cases)),
        "failures": str(counts["failure"]),
        "errors": str(counts["error"]),
        "skipped": "0",
    }


def _case(cell: CellView) -> ET.Element:
    task, attack, surface = cell.key
    name = f"{cell.side_name}: {task}, {cell.where}"
    case = ET.Element(
        "testcase", {"classname": text(f"holdfast.{cell.side}"), "name": text(name)}
    )  # fmt: skip
    figures = (
        f"{cell.measure} {cell.before} → {cell.after}, {cell.shown_change} points "
        f"({cell.shown_interval}), budget {cell.shown_budget}"
    )
    if cell.state in KINDS:
        attributes = {"type": cell.state, "message": text(figures)}
        found = ET.SubElement(case, KINDS[cell.state], attributes)
        found.text = text("\n".join(cell.reasons))
    said = ET.SubElement(case, "system-out")
    pairs = "; ".join(part for part in (f"{cell.n} pairs", cell.unscored_note) if part)
    said.text = text(f"{figures}\n{pairs}; cell {task} {attack} {surface}")
    return case


def _verdict(told: Banner) -> ET.Element:
    case = ET.Element("testcase", {"classname": "holdfast", "name": "verdict"})
    kind = "failure" if told.outcome == "FAIL" else "error"
    attributes = {"type": told.outcome.lower(), "message": text(told.sentence)}
    ET.SubElement(case, kind, attributes).text = text("\n".join(told.reasons))
    return case
