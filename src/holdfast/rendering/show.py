"""Show: one rendered row with its tokens marked or coloured by loss kind."""

from __future__ import annotations

from itertools import groupby
from typing import Any, Literal

from rich.text import Text

from holdfast.rendering.render import IGNORE
from holdfast.types import Rendered

Kind = Literal["none", "mle", "transition"]
COLOURS: dict[Kind, str] = {"none": "dim", "mle": "bold green", "transition": "bold magenta"}


def kinds(row: Rendered) -> list[Kind]:
    """The loss kind of each position: a target that is not its own token is a transition."""
    return [
        "none" if label == IGNORE else "mle" if label == token else "transition"
        for token, label in zip(row.input_ids, row.labels, strict=True)
    ]


def runs(tokenizer: Any, row: Rendered) -> list[tuple[Kind, str]]:
    """The row's text in runs of one loss kind."""
    pairs = list(zip(kinds(row), row.input_ids, strict=True))
    return [
        (kind, tokenizer.decode([token for _, token in run]))
        for kind, run in groupby(pairs, key=lambda pair: pair[0])
    ]


def marked(tokenizer: Any, row: Rendered) -> str:
    """Plain text with trained runs in marks: ⟦mle⟧ and ⟪transition⟫."""
    marks: dict[Kind, tuple[str, str]] = {
        "none": ("", ""), "mle": ("⟦", "⟧"), "transition": ("⟪", "⟫"),
    }  # fmt: skip
    return "".join(f"{marks[k][0]}{text}{marks[k][1]}" for k, text in runs(tokenizer, row))


def coloured(tokenizer: Any, row: Rendered) -> Text:
    """The row for a terminal: context dim, trained green, transitions magenta."""
    text = Text()
    for kind, piece in runs(tokenizer, row):
        text.append(piece, style=COLOURS[kind])
    return text
