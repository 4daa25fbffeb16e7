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
    if text.isascii():  # nearly always, and asked for all the time
        text = text.replace("`", "'")
    else:
        text = _ODD.sub(lambda odd: _SAME[ord(odd[0])] or "", unicodedata.normalize("NFKC", text))
    return " ".join(text.split()).casefold()


def words(text: str) -> list[str]:
    """Words of the normalised text."""
    return words_of(normalise(text))


def words_of(normalised: str) -> list[str]:
    """Words of a text that is normalised already."""
    return _WORD.findall(normalised)
