"""Attack `prefill_tokens`: the reply already begun, by so many of the model's own tokens.

As `prefill`, in the unit of the shallow-alignment paper (arXiv 2406.05946 §2: k of 0 to 40 tokens),
which depends on the tokenizer; `prefill` counts words and is the same for every model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import Field

from holdfast.attacks import ATTACKS, AttackContext
from holdfast.attacks.prefill import affirmative_opening
from holdfast.types import Item, Prompt, Surface


@ATTACKS.register("prefill_tokens")
class PrefillTokens:
    """The first k tokens of a complying answer put in the model's mouth (Qi et al. 2024)."""

    needs = frozenset({"prefill"})
    sides = frozenset({"refuse"})

    def __init__(self, tokens: Sequence[Annotated[int, Field(ge=1)]] = (5, 10, 20, 40)) -> None:
        self.tokens = tuple(dict.fromkeys(tokens))

    def unavailable(self, context: AttackContext) -> str | None:
        """Without the model's tokenizer there are no tokens to count."""
        if getattr(context.target, "tokenizer", None) is not None:
            return None
        return "the engine has no tokenizer at hand; `prefill` counts words"

    def prompts(self, item: Item, context: AttackContext) -> Iterator[tuple[Surface, Prompt]]:
        """One prompt per length that the answer reaches."""
        answer = item.complying or affirmative_opening(item.request)
        encoded = context.target.tokenizer(
            answer, add_special_tokens=False, return_offsets_mapping=True
        )
        ends = [end for _, end in encoded["offset_mapping"]]
        reach = {min(k, len(ends)) for k in self.tokens}
        for k in self.tokens:
            if k in reach:
                yield Surface(prefill=k), Prompt(item.messages, answer[: ends[k - 1]].rstrip())
