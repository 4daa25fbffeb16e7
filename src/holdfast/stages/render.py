"""Render: the mixture as token ids and labels, with a readable preview of what is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice, tee
from pathlib import Path
from typing import Any

from holdfast.errors import DataError
from holdfast.files import make_folder, write_json, write_jsonl, write_text
from holdfast.progress import say
from holdfast.render import Renderer, Tally
from holdfast.rendered import write_rendered
from holdfast.show import marked
from holdfast.types import Conversation, Rendered

PREVIEW = 10


def render(renderer: Renderer, rows: Iterable[Conversation], folder: Path) -> dict[str, Any]:
    """Render rows into a folder, with `preview.txt`, `dropped.jsonl` and `tally.json`.

    Returns:
        The tally: rows, tokens, trained targets per source and loss.

    Raises:
        DataError: not one row could be rendered.
        ModelError: a chat template that cannot be trusted with labels.
    """
    make_folder(folder)
    tally = Tally()
    rendered, shown = tee(renderer.rows(rows, tally))
    preview = list(islice(shown, PREVIEW))
    del shown
    write_rendered(folder, rendered)
    write_text(folder / "preview.txt", "\n\n".join(_entries(renderer, preview)) + "\n")
    write_jsonl(folder / "dropped.jsonl", tally.dropped)
    write_json(folder / "tally.json", tally)
    if not tally.rows:
        reason = tally.dropped[0].reason if tally.dropped else "there is no row"
        raise DataError(f"No row could be rendered for training: {reason}")
    _announce(tally)
    return tally.to_json()


def _entries(renderer: Renderer, rows: Iterable[Rendered]) -> Iterator[str]:
    for row in rows:
        yield f"--- {row.id} ({row.source})\n{marked(renderer.tokenizer, row)}"


def _announce(tally: Tally) -> None:
    say(f"  {tally.rows:,} rows, {tally.tokens:,} tokens")
    budget = (f"{kind} {count:,}" for kind, count in sorted(tally.targets.items()))
    say(f"  trained tokens by row and loss: {', '.join(budget)}")
    if tally.truncated:
        say(f"  {tally.truncated:,} rows were cut to the longest length")
    if tally.dropped:
        say(f"  {len(tally.dropped):,} rows dropped: {tally.dropped[0].reason}")
    if tally.split:
        say(f"  {tally.split:,} conversations rendered as one row per reply")
