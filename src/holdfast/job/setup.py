"""Setup: a recipe's names turned into things, before any work starts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from holdfast.files import digest, sha256_file
from holdfast.measuring.asking import Asked, context_of, what_to_ask
from holdfast.models import ModelRef, fingerprint, resolve_model
from holdfast.recipe import PromptingSettings, Recipe
from holdfast.rendering.prompting import Prompting
from holdfast.rendering.published import demonstrations, reminder, system_prompt
from holdfast.tasks import TaskContext
from holdfast.templates import template_text

DEFAULT_REQUESTS = "hh-red-team"
DEFAULT_BORDERLINE = "or-bench-80k"


@dataclass(frozen=True, slots=True)
class Setup:
    """What a recipe resolves to."""

    recipe: Recipe
    """With every default that depends on the model filled in."""
    model: ModelRef
    fingerprint: str
    """Of the model's weights, tokenizer and template."""
    train: Prompting
    serve: Prompting
    safety_prompt: str
    defences: Prompting
    """The reminder and the demonstrations that serving-side mitigations may add."""
    context: TaskContext
    asked: Asked

    @property
    def data_key(self) -> str:
        """What identifies the user's rows."""
        path = Path(self.recipe.data).expanduser()
        content = sha256_file(path) if path.is_file() else self.recipe.data
        return digest(content, self.recipe.columns, self.recipe.split, self.recipe.strict)


def set_up(recipe: Recipe) -> Setup:
    """Resolve a recipe.

    Raises:
        RecipeError: an unknown name.
        MaterialError: a published prompt that is not at hand.
        ModelError: no such model.
    """
    model = resolve_model(recipe.model)
    recipe = fill_defaults(recipe, lab=model.is_lab)
    context = context_of(recipe.data_dir)
    return Setup(
        recipe=recipe,
        model=model,
        fingerprint=fingerprint(model),
        train=prompting_of(recipe.prompting.train, context),
        serve=prompting_of(recipe.prompting.serve, context),
        safety_prompt=system_prompt(recipe.prompting.safety, context) or "",
        defences=defences_of(recipe, context),
        context=context,
        asked=what_to_ask(
            recipe.evaluate, lab=model.is_lab, served=model.address is not None, context=context
        ),
    )


def fill_defaults(recipe: Recipe, *, lab: bool) -> Recipe:
    """The recipe with the defaults that depend on whether the model is the lab's.

    A real model never meets the lab's items, judge or rows unless the recipe names them.
    """
    safety = recipe.safety.source or ("lab:safety" if lab else "self")
    borderline = recipe.borderline.source or ("lab:borderline" if lab else DEFAULT_BORDERLINE)
    triples = recipe.triples.source or ("lab:triples" if lab else None)
    requests = recipe.safety.requests or (DEFAULT_REQUESTS if safety == "self" else None)
    blocks: dict[str, Any] = {
        "safety": recipe.safety.model_copy(update={"source": safety, "requests": requests}),
        "borderline": recipe.borderline.model_copy(update={"source": borderline}),
        "triples": recipe.triples.model_copy(update={"source": triples}),
    }
    return recipe.model_copy(update=blocks)


def prompting_of(settings: PromptingSettings, context: TaskContext) -> Prompting:
    """One side's prompting, its names resolved."""
    system = system_prompt(settings.system, context)
    return Prompting(system, template_text(settings.template), settings.args)


def defences_of(recipe: Recipe, context: TaskContext) -> Prompting:
    """The reminder and the demonstrations, each only where a mitigation of the recipe adds it."""
    asked, named = recipe.mitigations, recipe.prompting
    reminding = reminder(named.reminder, context) if "self_reminder" in asked else Prompting()
    shown = demonstrations(named.demonstrations) if "context_defence" in asked else Prompting()
    return replace(reminding, demonstrations=shown.demonstrations)
