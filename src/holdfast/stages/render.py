"""Render: the mixture as token ids and labels, with a readable preview of what is trained.

Of preference pairs the chosen side is a row like any other, and the two sides lie apart, for
training that holds one against the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, tee
from pathlib import Path
from typing import Any

from holdfast.errors import DataError
from holdfast.files import make_folder, write_json, write_jsonl, write_text
from holdfast.processes.workers import in_order, processes
from holdfast.progress import say, track
from holdfast.rendering.render import Renderer, Tally
from holdfast.rendering.rendered import RenderedBatch, write_batches, write_rendered
from holdfast.rendering.show import marked
from holdfast.rows.preference import both_sides, is_pair
from holdfast.rows.stored import StoredRows
from holdfast.types import Conversation, Rendered

PREVIEW = 10


ALONE = 1024
"""So many rows are rendered before other processes are started, which takes them half a second."""
BATCH = 512


def render(
    renderer: Renderer, rows: Iterable[Conversation], folder: Path, count: int | None = None
) -> dict[str, Any]:
    """Render rows into a folder, with `preview.txt`, `dropped.jsonl` and `tally.json`.

    Args:
        renderer: under the prompting of training.
        rows: in the order in which they are stored; `StoredRows` are read where they are rendered.
        folder: is made.
        count: processes, where there are many rows; None: as many as there are cores.

    Returns:
        The tally: rows, tokens, trained targets per source and loss.

    Raises:
        DataError: not one row could be rendered.
        ModelError: a chat template that cannot be trusted with labels.
    """
    make_folder(folder)
    tally = Tally()
    preview: list[Rendered] = []
    write_batches(folder, _rendered(renderer, rows, tally, count, preview))
    write_text(folder / "preview.txt", "\n\n".join(_entries(renderer, preview)) + "\n")
    write_jsonl(folder / "dropped.jsonl", tally.dropped)
    write_json(folder / "tally.json", tally)
    if not tally.rows:
        reason = tally.dropped[0].reason if tally.dropped else "there is no row"
        raise DataError(f"No row could be rendered for training: {reason}")
    _announce(tally)
    return tally.to_json()


@dataclass(frozen=True, slots=True)
class _Part:
    """Renders one batch of rows, of which there were others before."""

    renderer: Renderer

    def __call__(self, rows: Iterable[Conversation]) -> tuple[RenderedBatch, Tally]:
        tally = Tally(rows=1)  # a template that failed on every row would have been found before
        rendered = list(self.renderer.rows(rows, tally))
        tally.rows -= 1
        return RenderedBatch.of(rendered), tally


def _rendered(
    renderer: Renderer,
    rows: Iterable[Conversation],
    tally: Tally,
    count: int | None,
    preview: list[Rendered],
) -> Iterator[RenderedBatch]:
    """Rows in order, the later ones rendered by several processes; the first go to `preview`."""
    batches = track(_batches(rows), "render")
    count = processes() if count is None else count
    for batch in batches:
        rendered = list(renderer.rows(batch, tally))
        preview += rendered[: PREVIEW - len(preview)]
        yield RenderedBatch.of(rendered)
        if count > 1 and tally.rows >= ALONE:
            break
    for packed, part in in_order(_Part(renderer), batches, count):
        tally.take(part)
        yield packed


def _batches(rows: Iterable[Conversation]) -> Iterator[Iterable[Conversation]]:
    if isinstance(rows, StoredRows):
        return rows.batches(BATCH)
    source = iter(rows)
    return iter(lambda: list(islice(source, BATCH)), [])


def render_pairs(renderer: Renderer, rows: Iterable[Conversation], folder: Path) -> int:
    """Render both sides of the preference pairs among some rows, for `RenderedPairs`.

    Writes `preview.txt` and `dropped.jsonl` beside them, as `render` does.

    Args:
        renderer: under the prompting of training; a pair of which one side cannot be rendered is
            dropped.
        rows: a mixture; what is no pair is passed over.
        folder: is made.

    Returns:
        Tokens of both sides.

    Raises:
        DataError: not one pair could be rendered.
    """
    make_folder(folder)
    tally = Tally()
    rendered, shown = tee(_sides(renderer, rows, tally))
    preview = list(islice(shown, 2 * PREVIEW))
    del shown
    pairs = len(write_rendered(folder, rendered)) // 2
    write_text(folder / "preview.txt", "\n\n".join(_entries(renderer, preview)) + "\n")
    write_jsonl(folder / "dropped.jsonl", tally.dropped)
    if not pairs:
        reason = tally.dropped[0].reason if tally.dropped else "there is no pair"
        raise DataError(f"No preference pair could be rendered for training: {reason}")
    say(f"  {pairs:,} preference pairs to train on after that, {tally.tokens:,} tokens")
    return tally.tokens


def _sides(renderer: Renderer, rows: Iterable[Conversation], tally: Tally) -> Iterator[Rendered]:
    """The two sides of each pair, one after the other."""
    for row in filter(is_pair, rows):
        sides = [list(renderer.rows([side], tally)) for side in both_sides(row)]
        if all(sides):
            yield from (side[-1] for side in sides)


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
