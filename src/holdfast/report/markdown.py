"""The Markdown summary: compact, for a pull request."""

from __future__ import annotations

import re
from collections.abc import Sequence

from holdfast.report import agreement, attacks, people, story, words
from holdfast.report.cells import CellView, control_of, gating, views
from holdfast.report.material import Material
from holdfast.report.verdict import Banner, banner

REASONS = 10
"""Reasons that are listed; a pull request is no place for more."""
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#!~&@])")


def render_markdown(material: Material) -> str:
    """Verdict line, table of gating cells, control arm, reasons, what must be served."""
    cells = views(material.comparison, material.before, material.after)
    plain = views(material.control_comparison, material.control_before, material.control)
    told = banner(material.comparison, cells, plain, material.waiting)
    parts = [
        [f"## {told.symbol} Holdfast: {told.outcome} – {escape(material.name)}"],
        [escape(told.sentence)],
        table(gating(cells), plain, (material.control_comparison or {}).get("serving")),
        _sequential(material),
        _by_attack(material),
        [f"**Control.** {escape(told.control)}"] if told.control else [],
        _corrected(material),
        [f"**Two judges.** {escape(line)}" for line in agreement.overall(material)],
        _reasons(told),
        _usage(material),
        _serving(material),
        [f"**Serving contract.** {escape(line)}" for line in story.contract(material)],
        [_rest(cells)] if cells else [],
    ]  # fmt: skip
    return words.clean("\n\n".join("\n".join(part) for part in parts if part)) + "\n"


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def table(cells: Sequence[CellView], control: Sequence[CellView], serving: str | None) -> list[str]:
    """The gating cells; a column for plain tuning where there is a control arm."""
    if not cells:
        return []
    names = ["", "cell", "counted", "n", "before", "after", "change, points", "budget"]
    names += ["plain tuning"] if control else []
    lines = [_row(names), _row(["---"] * len(names))]
    for cell in cells:
        row = [
            f"{cell.symbol} {words.STATES[cell.state][1]}",
            f"{cell.side_name}: {cell.task}, {cell.where}",
            cell.measure,
            f"{cell.n:,}" + _aside(cell.unscored_note),
            cell.before,
            cell.after,
            f"{cell.shown_change} ({cell.shown_interval})" + _aside(cell.noise_note),
            cell.shown_budget,
        ]
        if control:
            plain = control_of(cell, control, serving)
            row.append(f"{plain.after} ({plain.shown_change})" if plain else words.NOTHING)
        lines.append(_row([escape(value) for value in row]))
    return lines


def _sequential(material: Material) -> list[str]:
    saved = (material.comparison or {}).get("sequential")
    if not saved:
        return []
    return [
        f"**Asked sequentially.** {saved['asked']:,} of {saved['planned']:,} attempts; intervals "
        "are confidence sequences."
    ]


def _by_attack(material: Material) -> list[str]:
    """Each attack's rate and their mean, and what did not run."""
    found = attacks.table_of_run(material)
    if found is None:
        return []
    lines = [_row(["attack", *found.models]), _row(["---"] * (1 + len(found.models)))]
    lines += [_row([escape(value) for value in row]) for row in found.cells()]
    out = [escape(f"{name} ({reason})") for name, reason in found.not_run.items()]
    not_run = ["", f"Not run: {'; '.join(out)}."] if out else []
    return ["**By attack**, requests that should be refused:", "", *lines, *not_run]


def _usage(material: Material) -> list[str]:
    found = story.usage(material)
    if not found:
        return []
    lines = [_row(story.USAGE), _row(["---"] * len(story.USAGE))]
    return ["**Asked of servers**, all sessions together:", "", *lines, *map(_row, found)]


def _aside(note: str) -> str:
    return f"; {note}" if note else ""


def _row(values: Sequence[str]) -> str:
    return f"| {' | '.join(values)} |"


def _reasons(told: Banner) -> list[str]:
    if told.outcome == "PASS" or not told.reasons:
        return []
    listed = [f"- {escape(reason)}" for reason in told.reasons[:REASONS]]
    rest = len(told.reasons) - REASONS
    more = [f"- and {rest} more, in `report.json`"] if rest > 0 else []
    return ["**Reasons**", "", *listed, *more]


def _corrected(material: Material) -> list[str]:
    """What people would have counted, where a sample was labelled; side by side, to be short."""
    told = [
        f"- {escape(f'{side}, {cells} gating cells: {judged} judged, {right} corrected')}"
        for side, cells, judged, right in people.pooled(material)
    ]
    if not told:
        return []
    return [f"**Against people** ({escape(people.left_out(material))}), points:", "", *told]


def _rest(cells: Sequence[CellView]) -> str:
    others = len(cells) - len(gating(cells))
    more = f"{words.plural(others, 'further cell')} reported without gating. " if others else ""
    return f"{more}Answers and provenance are in `report.html`."


def _serving(material: Material) -> list[str]:
    served = story.prompts(material)
    if not served.known or served.serve is None:
        return []
    quoted = [f"    {line}" for line in served.serve.splitlines()]
    return ["The verdict holds for serving with this system prompt on every request:", "", *quoted]
