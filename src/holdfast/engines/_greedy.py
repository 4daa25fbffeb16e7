"""Greedy decoding over a model's own forward: equal to its `generate`, and nothing computed twice.

`generate` carries finished rows along until the last one ends, and computes an opening that all
prompts share once for each. Here the shared opening is computed once, and rows leave with their
stop token. Models whose cache is more than keys and values per token are left to `generate`.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from typing import Any

STILL_ASKED = 7 / 8
"""Finished rows leave once no more than this share is unfinished: leaving costs a copy of the
cache, as every step does."""
_SAID_PER_CALL = frozenset(
    {"bos_token_id", "do_sample", "eos_token_id", "max_length", "max_new_tokens", "pad_token_id",
     "temperature", "top_k", "top_p", "transformers_version", "_from_model_config", "use_cache"}
)  # fmt: skip
"""Settings of a model's `generation_config` that say nothing about greedy decoding, or that the
caller says anew."""


def decodes_plainly(model: Any) -> bool:
    """Whether `greedy` gives what the model's `generate` would.

    Not where its cache holds anything but a key and a value per token (sliding windows, recurrent
    states), not where it counts positions itself, and not where its own settings change the scores,
    such as a repetition penalty.
    """
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    own = getattr(model, "generation_config", None)
    if own is None or any(_matters(*setting) for setting in own.to_diff_dict().items()):
        return False
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # of an adapter
    if not set(inspect.signature(inner.forward).parameters) >= {"position_ids", "logits_to_keep"}:
        return False
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)


def _matters(name: str, value: Any) -> bool:
    """Whether a setting of a model's `generation_config` may change what is most probable."""
    neutral = not value or (name.endswith("penalty") and value == 1)
    return not neutral and name not in _SAID_PER_CALL


def greedy(
    model: Any, prompts: Sequence[list[int]], stops: Collection[int], limit: int, pad: int
) -> list[list[int]]:
    """The most probable next token, over and over, for a batch of prompts.

    Args:
        model: a causal language model for which `decodes_plainly`.
        prompts: (B, ragged) token ids, none empty.
        stops: ids that end an answer.
        limit: new tokens at most.
        pad: any id, for positions that nothing looks at.

    Returns:
        (B, ragged) new ids; what follows the first of `stops` in a row has no meaning.
    """
    import torch

    answers: list[list[int]] = [[] for _ in prompts]
    with torch.inference_mode():
        batch = _Batch(model, prompts, pad)
        ends = torch.tensor(sorted(stops), device=model.device)
        rows = list(range(len(prompts)))  # whose answer each row of the batch is
        unfinished = torch.ones(len(prompts), dtype=torch.bool, device=model.device)
        for left in reversed(range(limit)):
            token = batch.next  # (B,)
            for row, value in zip(rows, token.tolist(), strict=True):
                answers[row].append(value)
            unfinished &= ~torch.isin(token, ends)
            kept = unfinished.nonzero()[:, 0]
            if not left or not len(kept):
                break
            if len(kept) <= STILL_ASKED * len(rows):
                rows = [rows[i] for i in kept.tolist()]
                batch.keep(kept)
                token, unfinished = token[kept], unfinished[kept]
            batch.step(token)
    return answers


class _Batch:
    """Prompts in a model's cache: the shared opening, then the rests, padded on their left."""

    next: Any
    """(B,) the most probable next token of each row."""
    at: Any
    """(B, 1) the position of the last token of each row."""

    def __init__(self, model: Any, prompts: Sequence[list[int]], pad: int) -> None:
        import torch
        from transformers import DynamicCache

        self.model = model
        self.cache = DynamicCache(config=model.config)
        shared = shared_opening(prompts)
        if shared:
            self._forward(torch.tensor([prompts[0][:shared]], device=model.device))
            self.cache.batch_repeat_interleave(len(prompts))
        rests = [prompt[shared:] for prompt in prompts]
        width = max(map(len, rests))
        gaps = [width - len(rest) for rest in rests]
        ids = [[pad] * gap + rest for gap, rest in zip(gaps, rests, strict=True)]
        mask = [[1] * shared + [0] * gap + [1] * (width - gap) for gap in gaps]
        self.mask = torch.tensor(mask, device=model.device)  # (B, shared + width)
        at = (self.mask.cumsum(1) - 1).clamp(min=0)[:, shared:]  # (B, width)
        self._advance(torch.tensor(ids, device=model.device), at)

    def step(self, token: Any) -> None:
        """Take in one token (B,) of every row."""
        import torch

        self.mask = torch.cat([self.mask, self.mask.new_ones(len(token), 1)], dim=1)
        self._advance(token[:, None], self.at + 1)

    def keep(self, rows: Any) -> None:
        """Let go of all rows but these (indices, (K,))."""
        self.cache.batch_select_indices(rows)
        self.mask, self.at = self.mask[rows], self.at[rows]

    def _advance(self, ids: Any, at: Any) -> None:
        """Compute `ids` (B, T) at positions `at` (B, T)."""
        logits = self._forward(ids, attention_mask=self.mask, position_ids=at)  # (B, V)
        self.next, self.at = logits.argmax(-1), at[:, -1:]

    def _forward(self, ids: Any, **where: Any) -> Any:
        out = self.model(
            input_ids=ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1, **where
        )
        return out.logits[:, -1]


def shared_opening(prompts: Sequence[list[int]]) -> int:
    """How many tokens all prompts begin with, each keeping one of its own; 0 for a single one."""
    if len(prompts) < 2:
        return 0
    low, high = min(prompts), max(prompts)  # whatever these two share, all between them do
    most = min(map(len, prompts)) - 1
    return next((i for i in range(most) if low[i] != high[i]), most)
