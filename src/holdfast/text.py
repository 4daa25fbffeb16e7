"""One normalisation for everything that compares text: judges, duplicates, overlaps."""

from __future__ import annotations

import re
import unicodedata

_SAME = str.maketrans(
    {
        "‘": "'", "’": "'", "‚": "'", "‛": "'", "′": "'", "`": "'", "´": "'",
        "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "″": '"',
        "‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "-", "―": "-", "−": "-",
        "\u200b": None, "\u200c": None, "\u200d": None, "\ufeff": None, "\u00ad": None,
    }
)  # fmt: skip
_ODD = re.compile(f"[{''.join(map(chr, _SAME))}]")
_SPACE = re.compile(r"\s+")
_WORD = re.compile(r"\w+", re.UNICODE)


def same_length(text: str) -> str:
    """Case and typographic quotes folded, one character for one: offsets stay those of `text`."""
    if text.isascii():
        return text.replace("`", "'").lower()
    return "".join(_fold(char) for char in text)


def _fold(char: str) -> str:
    mapped = _SAME.get(ord(char), char)
    lowered = (mapped if isinstance(mapped, str) else " ").lower()
    return lowered if len(lowered) == 1 else char


def normalise(text: str) -> str:
    """Compatibility form, plain quotes and dashes, single spaces, lower case."""
    text = _ODD.sub(lambda odd: _SAME[ord(odd[0])] or "", unicodedata.normalize("NFKC", text))
    return _SPACE.sub(" ", text).strip().casefold()


def words(text: str) -> list[str]:
    """Words of the normalised text."""
    return _WORD.findall(normalise(text))
