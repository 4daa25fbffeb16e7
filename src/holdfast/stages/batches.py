"""Batches: which rows stand in which step, and how they are put together.

The order is a function of seed and epoch alone, so that a killed run continues exactly, and with as
many processes as it likes: the rows of a step are the same over one device or eight. Rows of
similar length stand together, so that padding is not computed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from holdfast.rendering.render import IGNORE

MEGABATCH = 50
"""Batches whose rows are sorted by length together; the field's usual figure."""


def length_grouped_order(lengths: Sequence[int], batch: int, *, seed: int, epoch: int) -> list[int]:
    """Row order of one epoch: shuffled, then batched by similar length, batches shuffled.

    Args:
        lengths: tokens of each row, (N,).
        batch: rows per optimizer step.
        seed: of the run.
        epoch: 0-based.

    Returns:
        A permutation of range(N); every consecutive `batch` rows are of similar length.
    """
    rng = random.Random(f"{seed}/{epoch}")  # noqa: S311  (an order, not a secret)
    order = list(range(len(lengths)))
    rng.shuffle(order)
    batches: list[list[int]] = []
    for start in range(0, len(order), batch * MEGABATCH):
        pool = sorted(order[start : start + batch * MEGABATCH], key=lambda i: -lengths[i])
        batches.extend(pool[i : i + batch] for i in range(0, len(pool), batch))
    # The short batch stays last, so that every other step sees `batch` rows.
    short = [b for b in batches if len(b) < batch]
    full = [b for b in batches if len(b) == batch]
    rng.shuffle(full)
    return [i for b in (*full, *short) for i in b]


class LengthGroupedOrder:
    """A sampler whose order depends on seed and epoch alone.

    Several processes deal the rows among themselves in equal hands; where the last ones do not go
    round, the index `len(lengths)` fills up, a row of `Filled` that trains nothing.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int, *, hands: int = 1) -> None:
        self.lengths = lengths
        self.batch = batch
        self.seed = seed
        self.epoch = 0
        self.fill = -len(lengths) % hands
        """Filling rows; `hands` are the rows that all processes together take in at a time."""

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at the start of each epoch, also when it resumes."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths) + self.fill

    def __iter__(self) -> Iterator[int]:
        order = length_grouped_order(self.lengths, self.batch, seed=self.seed, epoch=self.epoch)
        return iter([*order, *[len(self.lengths)] * self.fill])


class Filled:
    """Rows, and behind them one that has no label."""

    def __init__(self, rows: Any, pad_id: int) -> None:
        self.rows = rows
        self.filler = {"input_ids": [pad_id], "labels": [IGNORE]}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.filler if index == len(self.rows) else self.rows[index]


class Collator:
    """Rows → right-padded tensors.

    Padding stands behind every row and attention looks back only, so no mask is needed; without one
    the attention kernels take their causal path.
    """

    def __init__(self, pad_id: int, *, mask: bool = False) -> None:
        self.pad_id = pad_id
        self.mask = mask
        """Whether a mask is made nevertheless, for what reads all positions (expert routers)."""

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """`input_ids` and `labels`, and the mask where one is made: each (B, T)."""
        import numpy as np
        import torch

        lengths = np.asarray([len(row["input_ids"]) for row in rows])
        shape = len(rows), int(lengths.max())

        def padded(key: str, fill: int) -> Any:
            made = np.full(shape, fill, dtype=np.int64)
            for line, row in zip(made, rows, strict=True):
                line[: len(row[key])] = row[key]
            return torch.from_numpy(made)

        batch = {"input_ids": padded("input_ids", self.pad_id), "labels": padded("labels", IGNORE)}
        if self.mask:
            inside = np.arange(shape[1]) < lengths[:, None]
            batch["attention_mask"] = torch.from_numpy(inside.astype(np.int64))
        return batch
