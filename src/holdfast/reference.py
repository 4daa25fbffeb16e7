"""Reference: the recipe's settings as a Markdown page, from their own types and docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import BaseModel

from holdfast.recipe import Recipe


def recipe_reference() -> str:
    """Every setting with its type, default and meaning; `docs/recipe.md` is this text."""
    head = (
        "# Recipe reference\n\n"
        "One YAML file; an unknown key is an error. Any setting can be given on the command line "
        "as `block.key=value`.\nThis page is printed by `holdfast schema --markdown`.\n"
    )
    return "\n".join([head, *_blocks("", Recipe)]).rstrip() + "\n"


def _blocks(name: str, block: type[BaseModel]) -> Iterator[str]:
    title = f"## `{name}`" if name else "## Top level"
    about = "" if not name else f"{inspect.cleandoc(block.__doc__ or '')}\n"
    yield f"{title}\n\n{about}".rstrip() + "\n"
    yield "| key | default | meaning |\n|---|---|---|"
    inner: list[tuple[str, type[BaseModel]]] = []
    for key, field in block.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            inner.append((f"{name}.{key}".lstrip("."), kind))
            continue
        default = "required" if field.is_required() else f"`{_short(field.default)}`"
        meaning = re.sub(r"\s+", " ", field.description or "").strip()
        yield f"| `{field.alias or key}` | {default} | {meaning} |"
    yield ""
    for path, kind in inner:
        yield from _blocks(path, kind)


def _short(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True)
    return text.replace("\n...\n", "").strip()
