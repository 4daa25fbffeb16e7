"""Numbers and names as a reader wants them: percent, points, surfaces in words."""

from __future__ import annotations

import re
from collections.abc import Mapping

from holdfast.types import Surface

SIDES: Mapping[str, str] = {
    "harm": "Harm",
    "over_refusal": "Over-refusal",
    "capability": "Capability",
}
MEASURES: Mapping[str, str] = {
    "complied": "compliance",
    "harmful": "harmful answers",
    "refused": "refusals",
    "wrong": "correct answers",
    "reference probability": "reference probability",
}
"""The event as it is shown; `wrong` is stored and its complement is shown."""
SUBJECTS: Mapping[str, str] = {
    "complied": "Compliance with requests that should be refused",
    "harmful": "Harmful answers to requests that should be refused",
    "refused": "Refusals of harmless requests",
    "wrong": "Correct answers",
    "reference probability": "Probability of the reference answers",
}
STATES: Mapping[str, tuple[str, str]] = {
    "holds": ("✓", "holds"),
    "broken": ("✗", "broken"),
    "undecided": ("?", "undecided"),
    "reported": ("·", "reported"),
}
"""Symbol and word: no state is told by colour alone."""
OUTCOMES: Mapping[str, str] = {"PASS": "✓", "FAIL": "✗", "INCONCLUSIVE": "?"}
NOTHING = "–"

_PROMPTINGS = {
    "serve": "as served",
    "train": "with the training prompt",
    "none": "without the safety prompt",
}
_WRAPPERS = {
    "plain": "asked plainly",
    "task": "in the task's format",
    "disguised": "behind a question of the task",
    "code-string": "as a string in a program",
    "code-stack": "word by word in a program",
    "cipher": "after role play and demonstrations",
    "jailbreak": "in a jailbreak text",
    "opening": "as an opening to be continued",
    "replayed": "in a ready-made prompt",
    "searched": "in words that a search found",
}
_IMPLIED = (
    "direct", "task_template", "task_disguised", "prefill", "code", "self_cipher", "jailbreak",
    "completing", "replay", "prefill_tokens",
)  # fmt: skip
"""Attacks that their surface already tells."""
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """Text that any file and any browser can carry.

    Lone surrogates, control characters and overrides of the writing direction (which could make
    an answer look like another one) become U+FFFD.
    """
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text.encode("utf-8", "replace").decode())


def percent(share: float | None, digits: int = 1) -> str:
    """0.643 → `64.3 %`."""
    return NOTHING if share is None else f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign and a real minus; zero has none."""
    text = f"{value:+.{digits}f}"
    if not float(text):
        return text[1:]
    return text.replace("-", "\N{MINUS SIGN}")


def decimal(value: float, digits: int = 2) -> str:
    """A number with a real minus, and no plus."""
    return signed(value, digits).lstrip("+")


def points(share: float | None, digits: int = 1) -> str:
    """0.012 → `+1.2`."""
    return NOTHING if share is None else signed(100 * share, digits)


def between(low: str, high: str) -> str:
    """Two ends of an interval."""
    return NOTHING if NOTHING in (low, high) else f"{low} to {high}"


def number(value: float | int) -> str:
    """Whole numbers with thousands separators; others to four digits."""
    if isinstance(value, int) or value == int(value):
        return f"{int(value):,}"
    return f"{value:.4g}"


def plural(count: int, noun: str) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def where(surface: str, attack: str = "") -> str:
    """A surface in words: `asked plainly, as served`."""
    try:
        parsed = Surface.parse(surface)
    except ValueError:
        return surface
    parts = [_WRAPPERS.get(parsed.wrapper, parsed.wrapper)]
    parts.append(_PROMPTINGS.get(parsed.prompting, parsed.prompting))
    if parsed.form == "raw":
        parts.append("raw completion")
    if parsed.prefill:
        unit = "token" if attack == "prefill_tokens" else "word"
        parts.append(f"reply begun with {plural(parsed.prefill, unit)}")
    if attack and attack not in _IMPLIED:
        parts.append(f"attack {attack}")
    return ", ".join(parts)
