"""Engine `transformers`: a local model answers, in batches as large as memory allows.

    prompts → ids → as many at once as fit → greedy: `_greedy` · else the model's `generate` → text

Sampling is the library's, and so is what greedy decoding of its models may take beyond a loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from holdfast.engines import CAPABLE, ENGINES, Decoding
from holdfast.engines._greedy import alike, decodes_plainly, greedy
from holdfast.engines._room import Room
from holdfast.engines._tokens import Row, Tokens
from holdfast.recipe import DATE
from holdfast.types import Answer, Prompt

LEAST, ALIKE = 32, 1 / 2
"""Where the library pads all rows to the longest: rows that are computed together whatever their
lengths, since fewer leave the processor idle; else the shortest over the longest at least."""


@ENGINES.register("transformers")
class TransformersEngine(Tokens):
    """A loaded model and tokenizer."""

    can = CAPABLE["transformers"]

    def __init__(
        self, model: Any, tokenizer: Any, *, name: str = "model", date: str = DATE
    ) -> None:
        """Bind a model.

        Args:
            model: a causal language model on its device, in evaluation mode.
            tokenizer: its fast tokenizer, with a chat template.
            name: what the answers are recorded under.
            date: the date that templates may print.
        """
        super().__init__(tokenizer, date)
        self.name = name
        self.model = model

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[Answer]:
        """One answer per prompt, as many at once as fit into memory.

        Raises:
            ModelError: not even one does.
        """
        if decoding.temperature > 0:
            self._seed(decoding)
        own = self._is_greedy(decoding)  # then padding is taken care of
        decode = self._greedy if own else self.by_library
        rows = [self.row(prompt) for prompt in prompts]
        least = len(rows) if own else LEAST

        def cost(i: int) -> float:
            return self._room.answering(len(rows[i].ids), decoding.max_new_tokens)

        def answers(some: Sequence[int]) -> list[Answer]:
            new = decode([rows[i] for i in some], decoding)
            return [self.read(ids, rows[i]) for ids, i in zip(new, some, strict=True)]

        found: dict[int, Answer] = {}
        for some in alike([len(row.ids) for row in rows], least, ALIKE):
            found.update(zip(some, self._room.work(some, cost, answers), strict=True))
        return [found[i] for i in range(len(rows))]

    def _seed(self, decoding: Decoding) -> None:
        import torch

        torch.manual_seed(decoding.seed)

    def _is_greedy(self, decoding: Decoding) -> bool:
        return decoding.temperature <= 0 and self._plain

    @cached_property
    def _plain(self) -> bool:
        return decodes_plainly(self.model)

    @cached_property
    def _room(self) -> Room:
        return Room(self.model)

    def _greedy(self, rows: Sequence[Row], decoding: Decoding) -> list[list[int]]:
        stops = rows[0].stops
        pad = self.tokenizer.pad_token_id or 0
        return greedy(self.model, [r.ids for r in rows], stops, decoding.max_new_tokens, pad)

    def by_library(self, rows: Sequence[Row], decoding: Decoding) -> list[list[int]]:
        """New ids by the model's own `generate`, all rows in one batch: (B, new).

        What samples, what takes more than a loop, and what `generate` is compared with.
        """
        import torch

        ids, mask = self._left_padded([row.ids for row in rows])  # (B, T), (B, T)
        sampling: dict[str, Any] = {"do_sample": False}
        if decoding.temperature > 0:
            sampling = {
                "do_sample": True,
                "temperature": decoding.temperature,
                "top_p": decoding.top_p,
                "top_k": 0,
            }
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=self._generation_config(rows[0].stops, decoding, sampling),
            )
        new: list[list[int]] = out[:, ids.shape[1] :].tolist()  # (B, new)
        return new

    def loglikelihood(
        self, prompts: Sequence[Prompt], replies: Sequence[str], *, ended: bool = True
    ) -> list[float]:
        """Mean log-probability per token (nats) of each reply, with its stop token if `ended`.

        Raises:
            ModelError: memory does not suffice for a single one.
        """
        rows = [
            (self.row(prompt).ids, self.reply_ids(prompt, reply, ended))
            for prompt, reply in zip(prompts, replies, strict=True)
        ]
        return self._room.work(
            rows, lambda row: self._room.scoring(len(row[0]), len(row[1])), self._scores
        )

    def _scores(self, rows: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        import torch

        ids, mask = self._left_padded([head + tail for head, tail in rows])  # (B, T)
        keep = max(len(tail) for _, tail in rows) + 1
        with torch.inference_mode():
            logits = self.model(
                input_ids=ids, attention_mask=mask, logits_to_keep=keep
            ).logits.float()  # (B, keep, V)
        logp = torch.log_softmax(logits[:, :-1], dim=-1)  # (B, keep - 1, V)
        targets = ids[:, -(keep - 1) :]  # (B, keep - 1)
        picked = logp.gather(-1, targets[..., None])[..., 0]  # (B, keep - 1)
        return [float(picked[i, -len(tail) :].mean()) for i, (_, tail) in enumerate(rows)]

    def _left_padded(self, rows: Sequence[list[int]]) -> tuple[Any, Any]:
        import torch

        width = max(len(row) for row in rows)
        pad = self.tokenizer.pad_token_id or 0
        ids = [[pad] * (width - len(row)) + row for row in rows]
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
        device = self.model.device
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    def _generation_config(
        self, stops: Sequence[int], decoding: Decoding, sampling: dict[str, Any]
    ) -> Any:
        from transformers import GenerationConfig

        return GenerationConfig(
            max_new_tokens=decoding.max_new_tokens,
            eos_token_id=list(stops),
            pad_token_id=self.tokenizer.pad_token_id,
            **sampling,
        )
