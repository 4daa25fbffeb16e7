"""The shelf of attacks: each puts an item's request somewhere else.

The smallest one:

    @ATTACKS.register("direct")
    class Direct:
        \"\"\"The request as it is.\"\"\"
        needs = frozenset()
        def prompts(self, item, context):
            yield Surface(), Prompt(item.messages)

An attack's settings are the arguments of its constructor, checked against their types; what the
public attributes hold is stored with the answers, and makes two evaluations comparable.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, get_type_hints, runtime_checkable

from pydantic import ConfigDict, ValidationError, create_model

from holdfast.errors import RecipeError, did_you_mean
from holdfast.registry import Shelf
from holdfast.types import Item, Message, Prompt, Surface


@dataclass(frozen=True, slots=True)
class AttackContext:
    """What an attack may know besides the item."""

    wrap: Callable[[Item], tuple[Message, ...]] | None = None
    """Puts an item's request into the format the user's own rows share; None where they share
    none."""
    questions: Sequence[str] = ()
    """What the user's held-out rows ask, without the format they share; sorted."""
    seed: int = 0
    target: Any = None
    """The engine that is attacked, for attacks that need its tokenizer."""


class Attack(Protocol):
    """Turns an item into prompts; deterministic given the context's seed."""

    needs: frozenset[str]
    """What an engine must be able to do: `prefill`, `raw`, `logprobs`, `gradients`."""
    sides: frozenset[str]
    """Which of `refuse`, `comply`, `answer` items it applies to."""

    def unavailable(self, context: AttackContext) -> str | None:
        """Why this attack cannot run here, or None."""

    def prompts(self, item: Item, context: AttackContext) -> Iterator[tuple[Surface, Prompt]]:
        """Prompts for one item with the surface each stands on; prompting is added later."""


@runtime_checkable
class NeedsMaterial(Protocol):
    """An attack that cannot run without something the user brings."""

    def missing(self) -> str | None:
        """What is not at hand and how to give it, or None; known before any model is loaded."""


ATTACKS: Shelf[Callable[..., Attack]] = Shelf("attacks")

FOLDER = "data_dir"
"""The constructor argument that is the folder of benchmark files, and no setting."""


def attack(
    name: str, settings: Mapping[str, Any] | None = None, *, data_dir: Path | None = None
) -> Attack:
    """Build an attack from the shelf with its settings.

    Args:
        name: on the shelf.
        settings: arguments of its constructor.
        data_dir: folder with benchmark files, for attacks that read published prompts.

    Raises:
        RecipeError: no such attack or setting, or a value that the setting does not take.
        HoldfastError: material that a setting names and that cannot be read.
    """
    factory = ATTACKS.get(name)
    takes = _settings_of(factory)
    given = _checked(name, {k: v for k, v in takes.items() if k != FOLDER}, settings or {})
    return factory(**given, **({FOLDER: data_dir} if FOLDER in takes else {}))


def identity(attack: Attack) -> dict[str, Any]:
    """What distinguishes an attack from another of its name: its public attributes."""
    own = {key: value for key, value in vars(attack).items() if not key.startswith("_")}
    return {key: value for key, value in own.items() if key not in ("needs", "sides")}


def _settings_of(factory: Callable[..., Attack]) -> dict[str, tuple[Any, Any]]:
    """Constructor arguments: name → (type, default)."""
    built = factory.__init__ if inspect.isclass(factory) else factory
    if built is object.__init__:
        return {}
    types = get_type_hints(built, include_extras=True)
    return {
        name: (types.get(name, Any), ... if p.default is p.empty else p.default)
        for name, p in inspect.signature(factory).parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }


def _checked(
    name: str, takes: Mapping[str, tuple[Any, Any]], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings as the constructor's types read them; only those given."""
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    model = create_model(name, __config__=config, **dict[str, Any](takes))
    try:
        read = model.model_validate(dict(settings))
    except ValidationError as error:
        problems = [_explained(name, dict(one), takes) for one in error.errors()]
        raise RecipeError("\n  ".join(problems)) from None
    return {key: getattr(read, key) for key in settings}


def _explained(name: str, problem: Mapping[str, Any], takes: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    where = f"`evaluate.attack.{name}.{key}`"
    if problem["type"] == "extra_forbidden":
        hint = did_you_mean(key, takes) or f"The attack {name} has no settings."
        return f"Unknown setting {where}. {hint}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{where} is {problem['input']!r}: {message[:1].lower()}{message[1:]}."
