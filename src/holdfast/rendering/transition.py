"""Transition targets (RTO): which refusal token stands at a position.

The published code uses one constant id, which glues the refusal to the word before it
(papers P3.6). Here the token is resolved per tokenizer and per position: with a leading space after
a word, without one after white space.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from holdfast.errors import ModelError


@dataclass(frozen=True, slots=True)
class Aim:
    """What transition positions aim at, and which of them do (papers P3.2, P3.6)."""

    refusal: str = "Sorry"
    """The word whose first token is the target."""
    keep: float = 1.0
    """Share of a row's transition positions that keep their target; one at least."""
    end: bool = True
    """Whether the token that ends the reply is a transition position too."""
    constant: bool = False
    """Whether one spelling is the target everywhere, as published."""
    seed: int = 0
    """Of the positions kept."""

    def kept(self, positions: Collection[int], row: str) -> set[int]:
        """The positions that keep their target; more of them at a higher `keep`, none exchanged.

        Args:
            positions: where the row has transition targets.
            row: its text, which seeds the choice beside `seed`.
        """
        if self.keep >= 1 or not positions:
            return set(positions)
        rng = random.Random(f"{self.seed}/{row}")  # noqa: S311
        draws = {position: rng.random() for position in sorted(positions)}
        first = min(draws, key=lambda position: draws[position])
        return {first} | {position for position, draw in draws.items() if draw < self.keep}


@dataclass(frozen=True, slots=True)
class TransitionTokens:
    """The first token of a refusal, in its two spellings."""

    after_space: int
    """After white space, an opening quote or bracket, or nothing."""
    after_word: int
    """After any other character: carries its own space."""

    def at(self, left: str) -> int:
        """The target when the text so far ends in `left`: its last two characters, or fewer.

        A quote opens where no word stands before it; inside one ("can't") it is part of the word.
        """
        before, last = left[:-1], left[-1:]
        opens = last in "\"'([{" and not before[-1:].isalnum()  # also where nothing is to the left
        return self.after_space if opens or last.isspace() else self.after_word


def transition_tokens(
    tokenizer: Any, refusal: str = "Sorry", *, constant: bool = False
) -> TransitionTokens:
    """Resolve a refusal's first token for a tokenizer; `constant`: one spelling for both places.

    Raises:
        ModelError: the word has no token of its own in either spelling.
    """
    plain = tokenizer.encode(refusal, add_special_tokens=False)
    spaced = tokenizer.encode(f"a {refusal}", add_special_tokens=False)
    head = tokenizer.encode("a", add_special_tokens=False)
    after = spaced[len(head) :] if spaced[: len(head)] == head else []
    if not plain or not after:
        raise ModelError(f"The tokenizer has no token for {refusal!r}; name another refusal word.")
    # Where the space is a token of its own, it is what separates the refusal from the word.
    return TransitionTokens(plain[0], plain[0] if constant else after[0])
