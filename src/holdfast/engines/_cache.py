"""Keys and values of rows that are decoded together, each group of like length in its own buffer.

The linear maps of a decoding step want many rows at once; attention wants no padding. So rows of
all lengths take a step together, and attention looks at one group after the other, over no more
than that group's columns. Buffers grow a block at a time, and a row that leaves is overwritten by
the last one of its group: a step copies nothing but the new token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, Cache
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

BLOCK = 32
"""Columns by which a buffer grows."""
APART = "holdfast_groups"
"""The attention over groups, as the library's registry of attentions knows it."""


class Buffer:
    """Keys or values of one group in one layer: (B, heads, columns, size), padded on the left."""

    def __init__(self, filled: Tensor) -> None:
        self.held = filled
        self.columns = filled.shape[2]
        """How many are filled."""

    def append(self, new: Tensor) -> Tensor:
        """All columns, `new` (B, heads, T, size) behind those that were there."""
        start, self.columns = self.columns, self.columns + new.shape[2]
        if self.columns > self.held.shape[2]:
            rows, heads, _, size = self.held.shape
            larger = self.held.new_empty(rows, heads, self.columns + BLOCK, size)
            larger[:, :, :start] = self.held[:, :, :start]
            self.held = larger
        self.held[:, :, start : self.columns] = new
        return self.held[:, :, : self.columns]

    def move(self, holes: Tensor, movers: Tensor, count: int) -> None:
        """Put rows `movers` where `holes` are; the first `count` rows remain."""
        filled = self.held[:, :, : self.columns]
        filled[holes] = filled[movers]
        self.held = self.held[:count]


class Layer(DynamicLayer):  # type: ignore[misc, unused-ignore]
    """One layer of the cache: a buffer of keys and one of values for each group."""

    def __init__(self, groups: Sequence[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.is_initialized = True
        self.buffers = [(Buffer(keys), Buffer(values)) for keys, values in groups]

    def update(self, keys: Tensor, values: Tensor, *args: Any, **more: Any) -> tuple[Any, Any]:
        """Take in new columns of all rows: tensors where there is one group, else lists of them."""
        sizes = [len(held.held) for held, _ in self.buffers]
        new = zip(torch.split(keys, sizes), torch.split(values, sizes), strict=True)
        pairs = [
            (held_keys.append(new_keys), held_values.append(new_values))
            for (held_keys, held_values), (new_keys, new_values) in zip(
                self.buffers, new, strict=True
            )
        ]
        if len(pairs) == 1:
            return pairs[0]
        return [k for k, _ in pairs], [v for _, v in pairs]

    def get_seq_length(self) -> int:
        """Columns of the widest group."""
        return max(keys.columns for keys, _ in self.buffers)


class Groups(Cache):  # type: ignore[misc, unused-ignore]
    """The cache of all layers."""

    def __init__(self, groups: Sequence[Sequence[tuple[Tensor, Tensor]]]) -> None:
        """Take over what was computed for the prompts.

        Args:
            groups: of each group, the keys and values of each layer: (B, heads, columns, size).
        """
        super().__init__(layers=[Layer(layer) for layer in zip(*groups, strict=True)])

    def keep(self, rows: Sequence[int]) -> list[int]:
        """Let go of all rows but these.

        Args:
            rows: in ascending order, counted over all groups.

        Returns:
            The rows that stand now, in their new order.
        """
        order: list[int] = []
        alive: list[int] = []
        first = 0
        for group, size in enumerate(self.sizes):
            kept = [row - first for row in rows if first <= row < first + size]
            standing = self._keep(group, kept) if len(kept) < size else kept
            order += [first + row for row in standing]
            alive += [group] if kept else []
            first += size
        for layer in self.layers:
            layer.buffers = [layer.buffers[group] for group in alive]
        return order

    @property
    def sizes(self) -> list[int]:
        """Rows of each group."""
        return [len(keys.held) for keys, _ in self.layers[0].buffers]

    def _keep(self, group: int, kept: list[int]) -> list[int]:
        """The rows of a group that stand now; the last ones fill what the others left."""
        count = len(kept)
        movers = [row for row in kept if row >= count]
        holes = sorted(set(range(count)) - set(kept))
        order = list(range(count))
        for hole, mover in zip(holes, movers, strict=True):
            order[hole] = mover
        for layer in self.layers:
            for buffer in layer.buffers[group]:
                places = torch.tensor([holes, movers], dtype=torch.long, device=buffer.held.device)
                buffer.move(*places, count)
        return order


def joined(caches: Sequence[Any]) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of each layer from the caches of some rows each, one below the other.

    Narrower ones are padded on the left; no mask lets attention look there.
    """
    width = max(cache.get_seq_length() for cache in caches)

    def below(parts: Iterable[Tensor]) -> Tensor:
        return torch.cat([nn.functional.pad(p, (0, 0, width - p.shape[2], 0)) for p in parts])

    layers = zip(*(cache.layers for cache in caches), strict=True)
    return [(below(p.keys for p in parts), below(p.values for p in parts)) for parts in layers]


# --- attention over groups ------------------------------------------------------------------------


def attends_apart(model: Any) -> bool:
    """Whether a model's attention can be given the groups: it is the library's, by torch."""
    inner = inside(model)
    config = inner.config
    by_torch = config._attn_implementation == "sdpa" and not config.sub_configs
    return bool(by_torch and inner._supports_attention_backend)


@contextmanager
def attending_apart(model: Any) -> Iterator[None]:
    """While open, a model for which `attends_apart` looks at one group after the other."""
    inner = inside(model)
    inner.set_attn_implementation(APART)
    try:
        yield
    finally:
        inner.set_attn_implementation("sdpa")


def inside(model: Any) -> Any:
    """The model within an adapter, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _attention(
    module: Any, query: Tensor, key: Any, value: Any, mask: Tensor, **more: Any
) -> tuple[Tensor, None]:
    """The library's attention, group by group.

    Args:
        module: the attention layer.
        query: (B, heads, 1, size).
        key: of all rows, or of each group: (b, heads, columns, size).
        value: likewise.
        mask: (B, 1, 1, columns of the widest group), which columns are looked at; groups are
            padded on the left, so that the last columns are theirs.
        more: for the library's attention.
    """
    if isinstance(key, Tensor):
        key, value = [key], [value]
    sizes = [len(one) for one in key]
    queries, masks = torch.split(query, sizes), torch.split(mask, sizes)
    found = [
        sdpa_attention_forward(module, q, k, v, m[..., -k.shape[2] :], **more)[0]
        for q, k, v, m in zip(queries, key, value, masks, strict=True)
    ]
    return found[0] if len(found) == 1 else torch.cat(found), None


AttentionInterface.register(APART, _attention)
