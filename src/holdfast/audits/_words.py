"""The distinct words of many texts at once, as 32-bit hashes.

Each word is hashed as a polynomial of its bytes, modulo 2^64; a running sum over the whole batch
gives all of them in a few array operations.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import numpy as np

MOST_BYTES = 1 << 15
"""Longest batch, in bytes of UTF-8, with one more for each text."""

_WORD = re.compile(r"\w+")
_BASE = 0x9E3779B97F4A7C15
_MIX = np.uint64(0xD6E8FEB86659FD93)
_HALF = np.uint64(32)
_LETTERS = np.zeros(256, dtype=np.uint8)
"""A byte in lower case where it is part of a word, else 0."""
for _byte in range(256):
    if _byte >= 128 or chr(_byte).isalnum() or chr(_byte) == "_":
        _LETTERS[_byte] = ord(chr(_byte).lower()) if _byte < 128 else _byte


def as_words(folded: str) -> bytes:
    """A folded text such that whatever is no ASCII in it belongs to a word."""
    if folded.isascii():
        return folded.encode()
    return " ".join(_WORD.findall(folded)).encode("utf-8", "surrogatepass")


def word_hashes(texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The distinct words of texts that `as_words` made, at most `MOST_BYTES` of them.

    Returns:
        How many words each text has, (texts,); their hashes (uint32), text by text, ascending.
    """
    letters = _LETTERS[np.frombuffer(b"\n".join([*texts, b""]), dtype=np.uint8)]
    inside = np.concatenate(([False], letters != 0))
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    begins, ends = edges[0::2], edges[1::2]
    power = _powers()
    sums = np.zeros(len(letters) + 1, dtype=np.uint64)
    np.cumsum(letters * power[: len(letters)], out=sums[1:])
    # Moved to one place for all words: the same word gives the same number wherever it stands.
    hashes = (sums[ends] - sums[begins]) * power[MOST_BYTES - begins]
    hashes ^= hashes >> _HALF
    hashes *= _MIX
    lasts = np.cumsum([len(text) + 1 for text in texts])
    rows = np.searchsorted(lasts, begins, side="right").astype(np.uint64)
    keys = rows << _HALF | hashes >> _HALF
    keys.sort()
    distinct = keys[np.append(keys[1:] != keys[:-1], True)] if len(keys) else keys
    counts = np.bincount((distinct >> _HALF).astype(np.int64), minlength=len(texts))
    return counts, distinct.astype(np.uint32)


@cache
def _powers() -> np.ndarray:
    """Powers of the base modulo 2^64, from the first one on."""
    return np.cumprod(np.full(MOST_BYTES + 1, _BASE, dtype=np.uint64))
