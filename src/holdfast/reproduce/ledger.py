"""The ledger: verdicts as plain data, and that data as Markdown and as one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from holdfast import __version__
from holdfast.claims import CLAIMS, Trend
from holdfast.files import write_json, write_text
from holdfast.report import words
from holdfast.report.markdown import escape
from holdfast.report.page import environment
from holdfast.reproduce import forest
from holdfast.reproduce.sentences import (
    VERDICTS,
    effect_text,
    facts,
    failed_controls,
    figure,
    guide,
    lead,
    marks,
    p_text,
    seed_table,
    sign,
    verdict_text,
)
from holdfast.reproduce.verdicts import LEVEL, Effect, Judged, Level


@dataclass(frozen=True)
class Origin:
    """Where a ledger comes from, for its head and its commands."""

    command: str
    """What was typed."""
    row: str
    """The command of one row, with `{claim}` in its place."""
    looks: tuple[int, ...]


def stored(judged: Sequence[Judged], origin: Origin) -> dict[str, Any]:
    """The ledger as plain data; no times, so that two runs can be compared byte for byte."""
    return {
        "version": __version__,
        "command": origin.command,
        "looks": list(origin.looks),
        "level": LEVEL,
        "claims": [_claim(one, origin) for one in judged],
    }


def _claim(one: Judged, origin: Origin) -> dict[str, Any]:
    found, claim = one.finding, one.finding.claim
    return {
        "id": found.name,
        "sentence": CLAIMS.summary(found.name) if found.name in CLAIMS else found.name,
        "paper": claim.paper,
        "figure": claim.figure,
        "marks": list(claim.marks),
        "verdict": one.verdict,
        "untestable": found.untestable,
        "p": round(one.adjusted, 6),
        "seeds": list(found.seeds),
        "parts": [_part(effect) for effect in found.effects],
        "needs": [
            {"why": need.why, "at_least": need.at_least, **_level(level)}
            for need, level in zip(claim.needs, found.needs, strict=True)
        ],
        "agreement": found.agreement,
        "deviations": list(claim.deviations),
        "notes": list(claim.notes),
        "command": origin.row.format(claim=found.name),
        "control": bool(claim.passes),
        "passes": one.passes,
    }


def _part(effect: Effect) -> dict[str, Any]:
    part = effect.part
    return {
        "name": part.name,
        "expected": part.expected,
        "margin": None if isinstance(part, Trend) else part.margin,
        "trend": isinstance(part, Trend),
        "mean": _rounded(effect.mean),
        "low": _rounded(effect.low),
        "high": _rounded(effect.high),
        "differences": _seeds(effect.differences),
        "levels": [_level(level) for level in effect.levels],
    }


def _level(level: Level) -> dict[str, Any]:
    return {
        "name": level.name, "mean": _rounded(level.mean), "per_seed": _seeds(level.per_seed)
    }  # fmt: skip


def _seeds(values: Mapping[int, float]) -> dict[str, float]:
    return {str(seed): round(value, 6) for seed, value in values.items()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


# --- Markdown -------------------------------------------------------------------------------------


def as_markdown(ledger: Mapping[str, Any]) -> str:
    """The ledger for `docs/ledger.md`."""
    head = ["# Ledger", *[f"**{escape(line)}**" for line in failed_controls(ledger)]]
    head += [escape(lead(ledger)), f"Written by `{ledger['command']}`.", escape(guide(ledger))]
    known = "; ".join(f"[{mark}] {meaning}" for mark, meaning in marks(ledger))
    head += [f"How the papers' figures are known: {escape(known)}."] if known else []
    parts = [*head, "## All claims", *_tables(ledger), "## Every claim, every seed"]
    parts += [_section(claim) for claim in ledger["claims"]]
    return words.clean("\n\n".join(parts)) + "\n"


def _tables(ledger: Mapping[str, Any]) -> list[str]:
    names = ["", "claimed", "of", "the paper's figure", "effect, points (95 %)",
             f"`{forest.HEAD}`", "seeds", "p", "verdict"]  # fmt: skip
    rows = [_line(names), _line(["---"] * len(names))]
    for claim in ledger["claims"]:
        for number, part in enumerate(claim["parts"]):
            said = [
                escape(claim["id"]), escape(sign(part)), escape(part["name"]),
                escape(figure(claim)), effect_text(part), f"`{forest.lane(part)}`",
                str(len(claim["seeds"])), p_text(claim), verdict_text(claim),
            ]  # fmt: skip
            rows.append(_line(said if not number else [*said[:3], "", *said[4:6], "", "", ""]))
    return ["\n".join(rows)]


def _section(claim: Mapping[str, Any]) -> str:
    lines = [f"### {claim['id']} · {escape(claim['sentence'])}", ""]
    lines += [f"- {escape(label)}: {escape(text)}" for label, text in facts(claim)]
    lines += [f"- again: `{claim['command']}`", ""]
    columns, rows = seed_table(claim)
    if rows:
        lines += [_line(map(escape, columns)), _line(["---"] * len(columns))]
        lines += [_line(map(escape, row)) for row in rows]
    return "\n".join(lines).rstrip()


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


# --- page -----------------------------------------------------------------------------------------


def as_page(ledger: Mapping[str, Any]) -> str:
    """One self-contained HTML file: no script, no request to anywhere."""
    folder = files("holdfast")
    style = "".join(
        folder.joinpath(*path).read_text(encoding="utf-8")
        for path in (("report", "page.css"), ("reproduce", "page.css"))
    )
    text = folder.joinpath("reproduce", "page.html.jinja").read_text(encoding="utf-8")
    failed = failed_controls(ledger)
    shown = [
        {
            **claim,
            "figure_text": figure(claim),
            "verdict_text": verdict_text(claim),
            "p_text": p_text(claim),
            "tone": VERDICTS[claim["verdict"]][1],
            "facts": facts(claim),
            "table": seed_table(claim),
        }
        for claim in ledger["claims"]
    ]
    return (
        environment()
        .from_string(text)
        .render(
            claims=shown,
            plot=forest.plot(ledger["claims"]),
            failed=failed,
            tone="fail" if failed else "none",
            lead=lead(ledger),
            guide=guide(ledger),
            marks=marks(ledger),
            command=ledger["command"],
            style=Markup(style),  # noqa: S704  (ours)
            version=__version__,
        )
    )


def write_ledger(
    judged: Sequence[Judged], origin: Origin, folder: Path, markdown: Path | None = None
) -> tuple[dict[str, Any], Path]:
    """Write `ledger.html`, `.md` and `.json` into a folder.

    Args:
        judged: all claims.
        origin: what was typed.
        folder: of the study.
        markdown: where the Markdown goes as well.

    Returns:
        The ledger, and its page.
    """
    ledger = stored(judged, origin)
    write_json(folder / "ledger.json", ledger)
    text = as_markdown(ledger)
    for path in (folder / "ledger.md", *([markdown] if markdown else [])):
        write_text(path, text)
    write_text(folder / "ledger.html", as_page(ledger))
    return ledger, folder / "ledger.html"
