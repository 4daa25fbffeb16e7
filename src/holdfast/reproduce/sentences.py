"""What a ledger says, in words; the same on a terminal, in Markdown and on the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.claims import MARKS, PAPERS
from holdfast.report import words

VERDICTS: Mapping[str, tuple[str, str]] = {
    "supported": ("✓", "holds"),
    "contradicted": ("✗", "broken"),
    "inconclusive": ("?", "undecided"),
    "not testable": ("·", "reported"),
}
"""Verdict → symbol, and the page's class."""
SIGNS: Mapping[str, str] = {
    "lower": "A < B", "higher": "A > B", "same": "A ≈ B", "different": "A ≠ B",
    "falling": "falls with the dose", "rising": "rises with the dose",
}  # fmt: skip


def failed_controls(ledger: Mapping[str, Any]) -> list[str]:
    """What to say first: controls that did not come out as they must."""
    return [
        f"The control {c['id']} failed ({c['verdict']}): {c['sentence']} Read no verdict below "
        "without it."
        for c in ledger["claims"]
        if c["passes"] is False
    ]


def lead(ledger: Mapping[str, Any]) -> str:
    """How many claims came out how."""
    claims = [c for c in ledger["claims"] if not c["control"]]
    counted = [
        f"{sum(c['verdict'] == verdict for c in claims)} {verdict}"
        for verdict in VERDICTS
        if any(c["verdict"] == verdict for c in claims)
    ]
    controls = [c for c in ledger["claims"] if c["control"]]
    told = f"{words.plural(len(claims), 'claim')}: {', '.join(counted)}." if claims else ""
    if controls:
        passed = sum(bool(c["passes"]) for c in controls)
        told += f" {passed} of {words.plural(len(controls), 'control')} as they must be."
    return told.strip()


def guide(ledger: Mapping[str, Any]) -> str:
    """How to read the ledger."""
    looks = ", then ".join(map(str, ledger["looks"]))
    more = ", more only where fewer could not decide" if len(ledger["looks"]) > 1 else ""
    return (
        "An effect is A minus B in percentage points, the mean over training seeds with Student's "
        f"95 % interval over them; A and B are paired by seed. Seeds: {looks}{more}. "
        "p is one-sided, pays for every look, and is corrected by Holm over the claims; "
        f"a verdict needs p < {ledger['level']} and an interval on its side of 0. "
        "≈ is an equivalence test (two one-sided tests) within the margin. Controls are not "
        "corrected, which makes them fail more easily."
    )


def figure(claim: Mapping[str, Any]) -> str:
    """The paper's figure with its trust mark."""
    if claim["control"]:
        return words.NOTHING
    marks = "".join(f"[{mark}]" for mark in claim["marks"])
    doubt = " (paper figure: not verified)" if "U" in claim["marks"] else ""
    return f"{claim['figure'] or 'direction only'} {marks}{doubt}".strip()


def effect_text(part: Mapping[str, Any]) -> str:
    """`−24.6 (−28.9 to −20.3)`, in points."""
    if part["mean"] is None:
        return words.NOTHING
    ends = words.between(words.points(part["low"]), words.points(part["high"]))
    return f"{words.points(part['mean'])} ({ends})"


def sign(part: Mapping[str, Any]) -> str:
    """What is claimed of a part."""
    margin = f" ± {100 * part['margin']:g}" if part["expected"] == "same" else ""
    return f"{SIGNS[part['expected']]}{margin}"


def verdict_text(claim: Mapping[str, Any]) -> str:
    """Symbol and verdict; of a control, whether it passed."""
    told = f"{VERDICTS[claim['verdict']][0]} {claim['verdict']}"
    if claim["control"]:
        told += " (as it must be)" if claim["passes"] else " (FAILED)"
    return told


def p_text(claim: Mapping[str, Any]) -> str:
    """The p-value, or nothing where nothing was tested."""
    if claim["verdict"] == "not testable":
        return words.NOTHING
    return "< 0.0001" if claim["p"] < 1e-4 else f"{claim['p']:.4f}"


def marks(ledger: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Trust marks that occur, with what they mean."""
    found = {mark for claim in ledger["claims"] for mark in claim["marks"]}
    return [(mark, MARKS[mark]) for mark in MARKS if mark in found]


def facts(claim: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What stands beside a claim, in words."""
    told = [("paper", f"{PAPERS[claim['paper']]}; {figure(claim)}")] if claim["figure"] else []
    told.append(("verdict", verdict_text(claim)))
    if claim["untestable"]:
        told.append(("not testable", claim["untestable"]))
    told += [
        ("needs", f"{n['why']}: {words.percent(n['mean'])}, at least {100 * n['at_least']:.0f} %")
        for n in claim["needs"]
    ]
    if claim["agreement"] is not None:
        told.append(("judges", f"lowest κ between the first two: {claim['agreement']:.2f}"))
    told += [("differs from the paper", text) for text in claim["deviations"]]
    told += [("note", text) for text in claim["notes"]]
    return told


def seed_table(claim: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Readings of all parts, every seed a column, in percent; and the differences in points."""
    seeds = [str(seed) for seed in claim["seeds"]]
    rows = []
    for part in claim["parts"]:
        for level in part["levels"]:
            each = [_percent(level["per_seed"].get(seed)) for seed in seeds]
            rows.append([f"{part['name']}: {level['name']}", _percent(level["mean"]), *each])
        each = [words.points(part["differences"].get(seed)) for seed in seeds]
        name = "last minus first" if part["trend"] else "A − B"
        rows.append([f"{part['name']}: {name}", words.points(part["mean"]), *each])
    return ["percent; differences in points", "mean", *(f"seed {s}" for s in seeds)], rows


def _percent(share: float | None) -> str:
    return words.NOTHING if share is None else f"{100 * share:.1f}"
