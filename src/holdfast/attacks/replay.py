"""Attack `replay`: ready-made attack prompts, one per item (black box; raw ones need raw access).

For prompts that somebody made already: with another tool, with a search on another model, or
published. A prompt is found for an item by the item's id, by the request's own words, or by the
row's number. Row numbers are taken only on demand (`by: row`): a published file need not be in the
order of the questions it was made from, and a wrong pairing shows nowhere, since the judge reads
the item's request beside the answer to another one. Every item of the tasks covered must have its
prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from holdfast.attacks import ATTACKS, AttackContext
from holdfast.attacks._texts import read_rows, reworded, text_of
from holdfast.errors import DataError
from holdfast.files import digest
from holdfast.types import Item, Message, Prompt, Surface

PROMPTS = ("prompt", "attack_prompt", "adversarial_prompt", "jailbreak", "question", "text")
"""Columns that a prompt is looked for in, in this order."""
IDS = ("id", "item", "item_id")
REQUESTS = ("request", "goal", "behavior", "query")


@ATTACKS.register("replay")
class Replay:
    """Ready-made attack prompts from a file, one per item."""

    sides = frozenset({"refuse"})

    def __init__(
        self,
        file: str | None = None,
        by: Literal["id", "request", "row"] | None = None,
        column: str | None = None,
        tasks: Sequence[str] | None = None,
        raw: bool = False,
        data_dir: Path | None = None,
    ) -> None:
        """Read the prompts.

        Args:
            file: rows with a prompt each: a file, a name of `sources.yaml`, or a Hub dataset.
            by: how a row finds its item: by its column `id` or `request`, or by its number, from 1.
                None: by id where the rows have one, else by request.
            column: that holds the prompts; None: the first of the usual names.
            tasks: whose items the file covers; None: those of every task.
            raw: whether the prompts are bare text to be continued, without a chat template.
            data_dir: folder with benchmark files.

        Raises:
            MaterialError: no such file, source or dataset.
            DataError: the rows have no prompts, or nothing that names their items.
        """
        rows = read_rows(file, data_dir=data_dir) if file else []
        self._file = str(file)
        self._prompts = _by_key(self._file, rows, by, column) if file else {}
        self._by = by or ("id" if _column(rows, IDS) else "request")
        self.needs = frozenset({"raw"}) if raw else frozenset[str]()
        self.tasks = None if tasks is None else tuple(tasks)
        self.raw = raw
        self.prompts_hash = digest(self._by, self._prompts)

    def missing(self) -> str | None:
        """Without prompts there is nothing to replay."""
        if self._prompts:
            return None
        return (
            "it has no prompts. Give a file with one per item, with the item's id or request: "
            "`evaluate.attack.replay.file`"
        )

    def unavailable(self, context: AttackContext) -> str | None:
        """Without prompts there is nothing to replay."""
        return self.missing()

    def prompts(self, item: Item, context: AttackContext) -> Iterator[tuple[Surface, Prompt]]:
        """One prompt: the item's own.

        Raises:
            DataError: the file has none for an item it should cover.
        """
        if self.tasks is not None and item.task not in self.tasks:
            return
        text = self._prompts.get(normal(item.request) if self._by == "request" else item.id)
        if text is None:
            raise DataError(
                f"{self._file} has no prompt for item {item.id!r} of the task {item.task} "
                f"(looked for by {self._by}). Add it, or name the tasks that the file covers: "
                "`evaluate.attack.replay.tasks`."
            )
        surface = Surface(wrapper="replayed", form="raw" if self.raw else "chat")
        bare = (Message.of("user", text),)
        yield surface, Prompt(bare if self.raw else reworded(item.messages, text), raw=self.raw)


def normal(request: str) -> str:
    """A request as it is compared: one line, case folded, without the final mark."""
    return " ".join(request.split()).casefold().rstrip("?.! ")


def _by_key(
    file: str, rows: Sequence[Any], by: str | None, column: str | None
) -> Mapping[str, str]:
    """Item id, request or row number → prompt."""
    prompts = column or _column(rows, PROMPTS)
    if prompts is None or not any(text_of(row, prompts) for row in rows):
        raise DataError(
            f"{file} has no column of prompts ({column or ', '.join(PROMPTS)}). Name it: "
            "`evaluate.attack.replay.column`."
        )
    found: dict[str, str] = {}
    for number, (key, row) in enumerate(zip(_keys(file, rows, by), rows, strict=True), 1):
        text = text_of(row, prompts)
        if not text or not key:
            raise DataError(f"{file}, row {number}: its {'prompt' if key else 'key'} is empty.")
        if key in found:
            raise DataError(f"{file}, row {number}: a second prompt for {key[:60]!r}.")
        found[key] = text
    return found


def _keys(file: str, rows: Sequence[Any], by: str | None) -> list[str]:
    if by == "row":
        return [str(number) for number in range(1, len(rows) + 1)]
    ids = None if by == "request" else _column(rows, IDS)
    requests = None if by == "id" else _column(rows, REQUESTS)
    if ids is not None:
        return [text_of(row, ids) for row in rows]
    if requests is not None:
        return [normal(text_of(row, requests)) for row in rows]
    wanted = {"id": IDS, "request": REQUESTS}.get(by or "", (*IDS, *REQUESTS))
    raise DataError(
        f"{file} does not say which item a prompt belongs to: it has none of the columns "
        f"{', '.join(wanted)}. Where row n belongs to item n, say so: "
        "`evaluate.attack.replay.by: row`."
    )


def _column(rows: Sequence[Any], names: Sequence[str]) -> str | None:
    """The first of `names` that the first row has."""
    first = rows[0] if rows and isinstance(rows[0], Mapping) else {}
    return next((name for name in names if name in first), None)
