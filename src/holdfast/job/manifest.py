"""The manifest: versions, revisions, hashes, seeds and licences; no times, no machine facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import holdfast
from holdfast.files import digest
from holdfast.job.setup import Setup
from holdfast.recipe import Recipe
from holdfast.rendering.chat_template import ChatTemplate
from holdfast.rendering.published import licences
from holdfast.tasks import task

PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "peft", "numpy")


def manifest(
    setup: Setup,
    mixture: Mapping[str, Any],
    origins: Mapping[str, Mapping[str, str]],
    template: ChatTemplate | None,
    announcement: str,
) -> dict[str, Any]:
    """What `manifest.json` says; a served model's template is not known."""
    recipe = setup.recipe
    return {
        "holdfast": holdfast.__version__,
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "model": {"name": setup.model.name, "fingerprint": setup.fingerprint},
        "data": {"ref": recipe.data, "digest": setup.data_key, "read": announcement},
        "seed": recipe.seed,
        "date": recipe.date,
        "template": None
        if template is None
        else {
            "digest": digest(template.text),
            "system_role": template.has_system_role,
            "injected_system": template.injected_system,
        },
        "mixture": dict(mixture),
        "sources": {
            **{pool: dict(origin) for pool, origin in origins.items()},
            **{name: {"origin": name, "licence": task(name).licence} for name in setup.asked.tasks},
            **{name: {"origin": name, "licence": terms} for name, terms in _prompts(recipe)},
        },
    }


def _prompts(recipe: Recipe) -> Iterable[tuple[str, str]]:
    """Published prompts that the recipe names, with the terms of their sources."""
    named = recipe.prompting
    texts = [named.train.system, named.serve.system, named.safety]
    if "self_reminder" in recipe.mitigations:
        texts.append(named.reminder)
    return licences([text for text in texts if text]).items()


def _version(package: str) -> str | None:
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return None
