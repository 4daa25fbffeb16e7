"""Room: how many rows are computed at once, by what memory is free; fewer once it did not suffice.

The estimate only has to be of the right order: where it was too generous, the batch is halved and
the smaller size kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from holdfast.errors import ModelError
from holdfast.progress import say

T = TypeVar("T")
U = TypeVar("U")
SHARE = 0.6
"""Of free memory that a batch may be estimated at."""


class Room:
    """Of one model on its device."""

    def __init__(self, model: Any, free: Callable[[], float] | None = None) -> None:
        """Bind a model.

        Args:
            model: a causal language model on its device.
            free: bytes that are free now; None: asked of the device.
        """
        self._free = free or (lambda: free_bytes(model.device))
        self._limit = math.inf
        self.token_bytes, self.logit_bytes = _costs(model)

    def answering(self, prompt: int, new: int) -> float:
        """Bytes of a row with `prompt` tokens that is given `new` ones."""
        return self.token_bytes * (prompt + new) + self.logit_bytes

    def scoring(self, prompt: int, reply: int) -> float:
        """Bytes of a row whose `reply` tokens are scored."""
        return self.token_bytes * (prompt + reply) + self.logit_bytes * reply

    def work(
        self, rows: Sequence[T], cost: Callable[[T], float], do: Callable[[Sequence[T]], list[U]]
    ) -> list[U]:
        """Do all rows, as many at once as there is room for.

        Args:
            rows: what is to be done.
            cost: bytes one row takes; a batch takes as much for each as for its largest.
            do: results of some rows, in order.

        Raises:
            ModelError: memory does not suffice for a single row.
        """
        done: list[U] = []
        while left := rows[len(done) :]:
            costs = [cost(row) for row in left]
            count = self._fitting(costs)
            try:
                done += do(left[:count])
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if count == 1:
                    raise ModelError(
                        "Memory does not suffice for a single prompt. Ask for shorter answers "
                        "(`evaluate.max_new_tokens`), or take a smaller model or a larger device."
                    ) from error
                self._limit = count * max(costs[:count]) / 2
                say(f"  {count} at once did not fit into memory: half as many from here on")
            else:
                continue
            _empty_cache()  # once the failed call's frames have let go of its tensors
        return done

    def _fitting(self, costs: Sequence[float]) -> int:
        """How many of the first rows fit, at least one."""
        room = min(SHARE * self._free(), self._limit)
        count, largest = 0, 0.0
        for cost in costs:
            largest = max(largest, cost)
            if (count + 1) * largest > room:
                break
            count += 1
        return max(1, count)


def free_bytes(device: Any) -> float:
    """Bytes free on a torch device; infinite where nothing tells."""
    import torch

    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + kept)
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return math.inf
    told = dict(line.split(":", 1) for line in lines)
    return float(told["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in told else math.inf


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice, on a GPU or on the CPU."""
    import torch

    told = str(error)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        "DefaultCPUAllocator" in told and "memory" in told
    )


def _costs(model: Any) -> tuple[float, float]:
    """Bytes of one token in a forward pass with its cache, and of one position's logits.

    A token's cache is a key and a value per layer. While a prompt is computed, a layer holds a few
    hidden states and the two halves of its gated feed-forward at once.
    """
    config = model.config.get_text_config(decoder=True)
    size = next(model.parameters()).element_size()
    hidden = config.hidden_size
    heads = getattr(config, "num_attention_heads", 1)
    wide = getattr(config, "head_dim", None) or hidden // heads
    cached = 2 * config.num_hidden_layers * (getattr(config, "num_key_value_heads", None) or heads)
    computed = 8 * hidden + 3 * (getattr(config, "intermediate_size", None) or 4 * hidden)
    logits = config.vocab_size * (size + 2 * 4)  # as computed, and twice in 32 bits
    return float(size * (cached * wide + computed)), float(logits)


def _empty_cache() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
