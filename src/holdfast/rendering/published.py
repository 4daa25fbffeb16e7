"""Published prompts by name: fetched from their source or given as a file, never shipped.

    name of ours      works at once: `holdfast-default`, `holdfast-reminder`, …
    published name    read from the source that `holdfast fetch prompts` brings
    file              `my-prompt.txt`: a system prompt, or a reminder with {request} in its place
    anything else     a system prompt's own text

Sources are program files, and untrusted: a prompt is taken from one as a string constant, and the
file is never run.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import DataError, MaterialError, RecipeError, did_you_mean
from holdfast.rendering.prompting import (
    DEMONSTRATIONS,
    REMINDERS,
    REQUEST,
    SAFETY_PROMPTS,
    Prompting,
)
from holdfast.rows import sources
from holdfast.rows.load import open_rows
from holdfast.tasks import TaskContext
from holdfast.types import Message


@dataclass(frozen=True, slots=True)
class Constant:
    """A string constant of a Python file."""

    source: str
    """Name in the table of sources."""
    name: str
    item: int | None = None
    """Which element, where the constant is a list."""


SYSTEM_PROMPTS: Mapping[str, Constant] = {
    "llama-2-default": Constant("ptst-prompts", "LLAMA_BASE_PROMPT"),
    "llama-2-short": Constant("ptst-prompts", "LLAMA_SHORT_PROMPT"),
    "mpt-neutral": Constant("ptst-prompts", "MPT_PROMPT"),
}
"""P2's three (papers P2.1): six sentences, the first two of them, and one line without safety."""
PUBLISHED_REMINDERS: Mapping[str, Constant] = {
    "self-reminder": Constant("self-reminder-prompts", "defense_templates", 0),
}

_ENDINGS = (".txt", ".md")


def system_prompt(named: str | None, context: TaskContext) -> str | None:
    """A system prompt by name or file, or the text itself; None stays None.

    Raises:
        MaterialError: a published prompt that is not at hand.
        RecipeError: no such file, or a word that is nearly a name.
    """
    if named is None or named in SAFETY_PROMPTS:
        return None if named is None else SAFETY_PROMPTS[named]
    if named in SYSTEM_PROMPTS:
        return _published(named, SYSTEM_PROMPTS[named], context)
    return _file(named) or _no_misspelt_name(named, [*SAFETY_PROMPTS, *SYSTEM_PROMPTS])


def reminder(named: str, context: TaskContext) -> Prompting:
    """A reminder by name or file, as the prefix and suffix of a prompting.

    Raises:
        MaterialError: a published reminder that is not at hand.
        RecipeError: neither a name nor a file, or a file without `{request}`.
    """
    if named in REMINDERS:
        text: str | None = REMINDERS[named]
    elif named in PUBLISHED_REMINDERS:
        text = _published(named, PUBLISHED_REMINDERS[named], context).replace("{}", REQUEST)
    else:
        text = _file(named)
    if text is None:
        known = [*REMINDERS, *PUBLISHED_REMINDERS]
        raise RecipeError(
            f"`prompting.reminder` is {named!r}, which is neither a known name nor a file "
            f"ending in {' or '.join(_ENDINGS)}. {did_you_mean(named, known)}"
        )
    prefix, slot, suffix = text.partition(REQUEST)
    if not slot:
        raise RecipeError(
            f"The reminder {named} does not say where the request goes: write {REQUEST} in its "
            "place, once."
        )
    return Prompting(prefix=prefix, suffix=suffix)


def demonstrations(named: str) -> Prompting:
    """Demonstrated refusals by name, or from a file of rows that `holdfast` reads.

    In-context defence has no published file: its authors' demonstration comes from the user.

    Raises:
        RecipeError: neither a name nor a file.
        DataError: a file that cannot be read as rows.
    """
    if named in DEMONSTRATIONS:
        turns = [
            turn
            for request, reply in DEMONSTRATIONS[named]
            for turn in (Message.of("user", request), Message.of("assistant", reply, "none"))
        ]
        return Prompting(demonstrations=tuple(turns))
    if not Path(named).expanduser().is_file():
        raise RecipeError(
            f"`prompting.demonstrations` is {named!r}, which is neither a known name nor a file "
            "of rows with a request and a reply, such as demonstrations.jsonl. "
            f"{did_you_mean(named, DEMONSTRATIONS)}"
        )
    turns = [
        Message.of(turn.role, turn.content, "none")
        for row in open_rows(Path(named).expanduser())
        for turn in row.messages
        if turn.role != "system"
    ]
    return Prompting(demonstrations=tuple(turns))


def licences(named: list[str]) -> dict[str, str]:
    """Published name → licence of its source, for those of the names that are published."""
    known = {**SYSTEM_PROMPTS, **PUBLISHED_REMINDERS}
    return {name: sources.get(known[name].source).licence for name in named if name in known}


# --- where the text comes from --------------------------------------------------------------------


def _published(named: str, constant: Constant, context: TaskContext) -> str:
    try:
        path = sources.require(constant.source, context.data_dir, context.offline)
    except MaterialError as error:
        raise MaterialError(
            f"The published prompt {named!r} is not at hand. {error} "
            f"Or give its text as a file: FILE{_ENDINGS[0]} in place of the name."
        ) from None
    return constant_of(path, constant)


def constant_of(path: Path, constant: Constant) -> str:
    """A string constant of a Python file, which is parsed and never run.

    Raises:
        DataError: the file has no such constant.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        value = next(
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign)
            and any(isinstance(t, ast.Name) and t.id == constant.name for t in node.targets)
        )
        text = value if constant.item is None else value[constant.item]
    except (StopIteration, ValueError, SyntaxError, LookupError, TypeError, RecursionError):
        text = None
    if not isinstance(text, str):
        raise DataError(
            f"{path} has no text {constant.name}: the source has changed its form. Give the "
            f"prompt as a file: FILE{_ENDINGS[0]} in place of the name."
        )
    return text


def _file(named: str) -> str | None:
    """The text of a file, or None where `named` does not look like one.

    Raises:
        RecipeError: it looks like a file and cannot be read.
    """
    if "\n" in named or not named.endswith(_ENDINGS):
        return None
    try:
        text = Path(named).expanduser().read_text(encoding="utf-8").strip()
        problem = "" if text else "it is empty"
    except (OSError, UnicodeDecodeError) as error:
        text, problem = "", type(error).__name__
    if problem:
        raise RecipeError(
            f"The prompt file {named} cannot be used ({problem}). Give a UTF-8 text file, or the "
            "prompt's own text."
        )
    return text


def _no_misspelt_name(text: str, known: list[str]) -> str:
    hint = did_you_mean(text, known)
    if " " not in text and hint.startswith("Did you mean"):
        raise RecipeError(f"There is no system prompt {text!r}. {hint}")
    return text
