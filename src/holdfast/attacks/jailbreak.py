"""Attack `jailbreak`: the request inside a jailbreak text that the user brings (black box).

JailbreakChat (papers P3.7) puts each question into one of the most voted public jailbreak texts,
drawn at random. None is shipped: the texts are a file or a Hub dataset with the place of the
request marked. The draw depends on the seed and the item alone, so that both arms of a comparison
and every resumed run ask the same.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from holdfast.attacks import ATTACKS, AttackContext
from holdfast.attacks._lab_mutator import LAB, templates
from holdfast.attacks._texts import read_rows, reworded, text_of
from holdfast.errors import DataError
from holdfast.files import digest
from holdfast.types import Item, Prompt, Surface

SLOT = "{request}"


@ATTACKS.register("jailbreak")
class Jailbreak:
    """The request inside a jailbreak text, from a file or a Hub dataset that you name."""

    needs: frozenset[str] = frozenset()
    sides = frozenset({"refuse"})

    def __init__(
        self,
        file: str | None = None,
        column: str | None = None,
        slot: Annotated[str, Field(min_length=1)] = SLOT,
        first: Annotated[int, Field(ge=1)] | None = None,
        split: str = "train",
        data_dir: Path | None = None,
    ) -> None:
        """Read the texts.

        Args:
            file: a file of rows, or a Hub dataset; `lab`: what the scale model has read.
            column: that holds the texts; None: the first column in which `slot` occurs.
            slot: what marks the request's place.
            first: take so many texts from the beginning, such as the 50 most voted; None: all.
            split: of a Hub dataset.
            data_dir: folder with benchmark files.

        Raises:
            MaterialError: no such file or dataset.
            DataError: no text has the slot.
        """
        self._wrappers: list[str] = []
        if file == LAB:
            self._wrappers = [t.replace(SLOT, slot) for t in templates() if t != SLOT][:first]
        elif file:
            rows = read_rows(file, split=split, data_dir=data_dir)
            self._wrappers = _wrappers(file, rows, column, slot)[:first]
        self._slot = slot
        self.wrappers = digest(self._wrappers, slot)
        """Hash of the texts."""

    def missing(self) -> str | None:
        """Without texts there is nothing to put the request into."""
        if self._wrappers:
            return None
        return (
            "it has no jailbreak texts. Give a file or a Hub dataset whose texts mark the "
            f"request's place with {SLOT}: `evaluate.attack.jailbreak.file`"
        )

    def unavailable(self, context: AttackContext) -> str | None:
        """Without texts there is nothing to put the request into."""
        return self.missing()

    def prompts(self, item: Item, context: AttackContext) -> Iterator[tuple[Surface, Prompt]]:
        """One prompt: the request inside a text drawn for the item."""
        rng = random.Random(f"{context.seed}/jailbreak/{item.task}/{item.id}")  # noqa: S311
        text = rng.choice(self._wrappers).replace(self._slot, item.request)
        yield Surface(wrapper="jailbreak"), Prompt(reworded(item.messages, text))


def _wrappers(file: str, rows: Sequence[Any], column: str | None, slot: str) -> list[str]:
    """The texts that mark the request's place, in the order of the file, each once."""
    columns = dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row)
    read = [column] if column is not None else list(columns)
    for name in read:
        texts = [text for row in rows if slot in (text := text_of(row, name))]
        if texts:
            return list(dict.fromkeys(texts))
    where = f"column {column!r}" if column is not None else f"columns {', '.join(columns)}"
    raise DataError(
        f"{file}: no text in its {where} marks the request's place with {slot!r}. Write {slot} "
        "where the request goes, or say what marks it: `evaluate.attack.jailbreak.slot`."
    )
