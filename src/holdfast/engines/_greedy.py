"""Greedy decoding over a model's own forward: equal to its `generate`, and nothing computed twice.

    shared opening, once → prompts, a few of like length at a time → a token of every row, repeated

`generate` carries finished rows along until the last one ends, computes an opening that all prompts
share once for each, and computes padding. Here the shared opening is computed once, prompts are
computed beside others of their length, rows leave with their stop token, and all of them decode
together while attention looks at each length apart (`_cache`). Models whose cache is more than keys
and values per token are left to `generate`.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

PREFILLED = {"cpu": 1024, "cuda": 16_384}
"""Tokens of prompts computed at a time, by device: enough to occupy it, few enough to be of like
length and, on a CPU, to stay in its caches."""
LEAST, ALIKE = 16, 2 / 3
"""Rows of a group, and its shortest prompt over its longest: both at least."""
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

    from holdfast.engines._cache import inside

    own = getattr(model, "generation_config", None)
    if own is None or any(_matters(*setting) for setting in own.to_diff_dict().items()):
        return False
    inner = inside(model)
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
        with batch.attention():
            for left in reversed(range(limit)):
                tokens = batch.next.tolist()
                for row, token in zip(batch.rows, tokens, strict=True):
                    answers[row].append(token)
                unfinished = [i for i, token in enumerate(tokens) if token not in stops]
                if not left or not unfinished:
                    break
                if len(unfinished) < len(tokens):
                    batch.keep(unfinished)
                batch.step()
    return answers


class _Batch:
    """Prompts in a model's cache, in groups of like length, and what follows them."""

    rows: list[int]
    """Whose answer each row is."""
    next: Any
    """(B,) the most probable next token of each row."""
    at: Any
    """(B, 1) the position of the last token of each row."""
    mask: Any
    """(B, columns) which columns are tokens of the row; rows end together, on the right."""

    def __init__(self, model: Any, prompts: Sequence[list[int]], pad: int) -> None:
        import torch

        from holdfast.engines._cache import Groups, attends_apart, joined

        self.model = model
        self.apart = attends_apart(model)
        lengths = [len(prompt) for prompt in prompts]
        groups = alike(lengths, LEAST if self.apart else len(prompts), ALIKE)
        self.rows = [row for group in groups for row in group]
        prefill = _Prefill(model, prompts, pad)
        caches, masks, following = [], [], []
        for group in groups:
            parts = [prefill(part) for part in prefill.parts(group)]
            caches.append(joined([cache for cache, _, _ in parts]))
            masks += [mask for _, mask, _ in parts]
            following += [token for _, _, token in parts]
        self.cache = Groups(caches)
        widest = max(mask.shape[1] for mask in masks)
        padded = [torch.nn.functional.pad(mask, (widest - mask.shape[1], 0)) for mask in masks]
        self.mask = torch.cat(padded)
        self.next = torch.cat(following)
        ends = [[lengths[row] - 1] for row in self.rows]
        self.at = torch.tensor(ends, device=model.device)

    def attention(self) -> AbstractContextManager[None]:
        """Open while steps are taken."""
        from holdfast.engines._cache import attending_apart

        return attending_apart(self.model) if self.apart else nullcontext()

    def keep(self, rows: Sequence[int]) -> None:
        """Let go of all rows but these, ascending."""
        order = self.cache.keep(rows)
        self.rows = [self.rows[row] for row in order]
        self.next, self.at, self.mask = self.next[order], self.at[order], self.mask[order]

    def step(self) -> None:
        """Take in the next token of every row."""
        import torch

        self.at = self.at + 1
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        self.next = _most_probable(
            self.model, self.next[:, None], self.cache, position_ids=self.at,
            attention_mask=self.mask[:, None, None] if self.apart else self.mask,
        )  # fmt: skip


class _Prefill:
    """Prompts computed: what they all begin with once, then the rests, padded on their left."""

    def __init__(self, model: Any, prompts: Sequence[list[int]], pad: int) -> None:
        import torch

        self.model = model
        self.pad = pad
        self.shared = shared_opening(prompts)
        self.rests = [prompt[self.shared :] for prompt in prompts]
        self.opening = self._cache()
        if self.shared:
            ids = torch.tensor([prompts[0][: self.shared]], device=model.device)
            _most_probable(model, ids, self.opening)

    def parts(self, rows: Sequence[int]) -> Iterator[Sequence[int]]:
        """Rows, long ones first, by what is computed at a time."""
        tokens = PREFILLED.get(self.model.device.type, PREFILLED["cuda"])
        while rows:
            count = max(1, tokens // len(self.rests[rows[0]]))
            yield rows[:count]
            rows = rows[count:]

    def __call__(self, rows: Sequence[int]) -> tuple[Any, Any, Any]:
        """The cache of some rows (B), which of its columns are theirs (B, columns), what follows.

        What follows is the most probable token of each, (B,).
        """
        import torch

        device, shared = self.model.device, self.shared
        rests = [self.rests[row] for row in rows]
        width = max(map(len, rests))
        gaps = [width - len(rest) for rest in rests]
        ids = [[self.pad] * gap + rest for gap, rest in zip(gaps, rests, strict=True)]
        mask = [[True] * shared + [False] * gap + [True] * (width - gap) for gap in gaps]
        seen = torch.tensor(mask, device=device)  # (B, shared + width)
        at = (seen.cumsum(1) - 1).clamp(min=0)[:, shared:]  # (B, width)
        cache = self._cache()
        for number, layer in enumerate(self.opening.layers if shared else ()):
            both = (part.expand(len(rows), -1, -1, -1) for part in (layer.keys, layer.values))
            cache.update(*both, number)
        token = _most_probable(
            self.model, torch.tensor(ids, device=device), cache, attention_mask=seen,
            position_ids=at,
        )  # fmt: skip
        return cache, seen, token

    def _cache(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self.model.config)


def _most_probable(model: Any, ids: Any, cache: Any, **where: Any) -> Any:
    """The most probable token (B,) behind `ids` (B, T), which the cache takes in."""
    out = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1, **where)
    return out.logits[:, -1].argmax(-1)


def shared_opening(prompts: Sequence[list[int]]) -> int:
    """How many tokens all prompts begin with, each keeping one of its own; 0 for a single one."""
    if len(prompts) < 2:
        return 0
    low, high = min(prompts), max(prompts)  # whatever these two share, all between them do
    most = min(map(len, prompts)) - 1
    return next((i for i in range(most) if low[i] != high[i]), most)


def alike(lengths: Sequence[int], least: int, share: float) -> list[list[int]]:
    """Numbers of the rows, long ones first, in runs of like length.

    A run of `least` rows ends where a row is shorter than `share` of the run's longest.
    """
    runs: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not runs or (len(runs[-1]) >= least and lengths[i] < share * lengths[runs[-1][0]]):
            runs.append([])
        runs[-1].append(i)
    return runs
