"""A small document: sentences, tables and drawings, shown on a terminal, as Markdown and as a page.

What a sweep says is said once, here; the three forms differ in nothing but their marks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from holdfast import __version__
from holdfast.files import write_json, write_text
from holdfast.report import words
from holdfast.report.markdown import escape
from holdfast.report.page import environment


@dataclass(frozen=True, slots=True)
class Table:
    """Columns and rows of short texts; the first column names the row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart with its heading; only the page shows it."""

    title: str
    svg: Markup
    note: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """What is said, in order."""

    title: str
    lead: str
    """The sentence to remember."""
    tables: Sequence[Table]
    drawings: Sequence[Drawing] = ()
    notes: Sequence[str] = ()
    tone: str = "none"
    """`pass`, `fail`, `inconclusive`, or `none`: colour of the lead on the page."""
    details: Sequence[Table] = field(default=())
    """Shown on the page and in Markdown, not on the terminal."""


def on_terminal(document: Document) -> RenderableType:
    """For `progress.show`."""
    parts: list[RenderableType] = [_rich(table) for table in document.tables]
    parts.append(Text(document.lead, style="bold"))
    parts += [Text(f"· {note}") for note in document.notes]
    return Group(*parts)


def _rich(table: Table) -> RichTable:
    shown = RichTable(title=table.title, title_justify="left")
    for number, column in enumerate(table.columns):
        shown.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text(cell.replace(" (", "\n(")) for cell in row))
    return shown


def as_markdown(document: Document) -> str:
    """For a pull request."""
    parts = [f"## {escape(document.title)}", escape(document.lead)]
    for table in (*document.tables, *document.details):
        lines = [f"**{escape(table.title)}**", ""]
        lines += [_line(table.columns), _line(["---"] * len(table.columns), plain=True)]
        lines += [_line(row) for row in table.rows]
        parts.append("\n".join(lines))
    if document.notes:
        parts.append("\n".join(f"- {escape(note)}" for note in document.notes))
    return words.clean("\n\n".join(parts)) + "\n"


def _line(cells: Sequence[str], *, plain: bool = False) -> str:
    return f"| {' | '.join(cells if plain else map(escape, cells))} |"


def as_page(document: Document) -> str:
    """One self-contained HTML file: no script, no request to anywhere."""
    folder = files("holdfast")
    style = "".join(
        folder.joinpath(*path).read_text(encoding="utf-8")
        for path in (("report", "page.css"), ("sweep", "page.css"))
    )
    text = folder.joinpath("sweep", "page.html.jinja").read_text(encoding="utf-8")
    page = environment().from_string(text)
    return page.render(
        document=document,
        tables=[*document.tables, *document.details],
        style=Markup(style),  # noqa: S704  (ours)
        version=__version__,
    )


def write_document(
    folder: Path, name: str, document: Document, stored: Mapping[str, Any]
) -> dict[str, Path]:
    """Write `name.html`, `.md` and `.json`.

    Returns:
        Ending → file.
    """
    paths = {ending: folder / f"{name}.{ending}" for ending in ("html", "md", "json")}
    write_text(paths["html"], as_page(document))
    write_text(paths["md"], as_markdown(document))
    write_json(paths["json"], stored)
    return paths
