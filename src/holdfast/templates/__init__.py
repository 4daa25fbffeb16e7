"""The shelf of chat templates: Jinja files, found by name.

A template on this shelf serves where a tokenizer has none, or where training and serving are to
use another than the model's own.
"""

from __future__ import annotations

from pathlib import Path

from holdfast.errors import RecipeError, did_you_mean

FOLDER = Path(__file__).parent


def template_names() -> list[str]:
    """Names on the shelf, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.jinja"))


def template_text(name: str | None) -> str | None:
    """Jinja text of a template by shelf name or file; None stays None (the model's own).

    Raises:
        RecipeError: neither a name on the shelf nor a readable file.
    """
    if name is None:
        return None
    shelved = FOLDER / f"{name}.jinja"
    if "/" not in name and shelved.is_file():
        return shelved.read_text(encoding="utf-8")
    path = Path(name).expanduser()
    if path.is_file():
        return path.read_text(encoding="utf-8")
    hint = did_you_mean(name, template_names())
    raise RecipeError(f"There is no template {name!r} on the shelf and no such file. {hint}")


def template_summary(name: str) -> str:
    """The comment a shelf template opens with."""
    text = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    return text.partition("{#-")[2].partition("-#}")[0].strip()
