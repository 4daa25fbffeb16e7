"""Transition targets (RTO): which refusal token stands at a position.

The published code uses one constant id, which glues the refusal to the word before it
(papers P3.6). Here the token is resolved per tokenizer and per position: with a leading space after
a word, without one after white space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from holdfast.errors import ModelError


@dataclass(frozen=True, slots=True)
class TransitionTokens:
    """The first token of a refusal, in its two spellings."""

    after_space: int
    """After white space, a quote, or nothing."""
    after_word: int
    """After any other character: carries its own space."""

    def at(self, left: str) -> int:
        """The target when the last character of the text so far is `left` (may be empty)."""
        return self.after_space if not left or left.isspace() or left in "\"'(" else self.after_word


def transition_tokens(tokenizer: Any, refusal: str = "Sorry") -> TransitionTokens:
    """Resolve a refusal's first token for a tokenizer.

    Raises:
        ModelError: the word has no token of its own in either spelling.
    """
    plain = tokenizer.encode(refusal, add_special_tokens=False)
    spaced = tokenizer.encode(f"a {refusal}", add_special_tokens=False)
    head = tokenizer.encode("a", add_special_tokens=False)
    after = spaced[len(head) :] if spaced[: len(head)] == head else []
    if not plain or not after:
        raise ModelError(f"The tokenizer has no token for {refusal!r}; name another refusal word.")
    first = after[0]
    if not tokenizer.decode([first]).strip() and len(after) > 1:
        # The space is a token of its own: the refusal itself follows it.
        first = after[1]
    return TransitionTokens(after_space=plain[0], after_word=first)
