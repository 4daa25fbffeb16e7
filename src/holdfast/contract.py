"""The serving contract: what was measured is what has to be served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holdfast.files import digest, write_json
from holdfast.prompting import Prompting
from holdfast.setup import Setup
from holdfast.types import Message, Prompt

CONTRACT = "holdfast-contract.json"


def write_contract(folder: Path, served: Prompting, renderer: Any, setup: Setup) -> Path:
    """Write the contract of a tuned model beside its weights.

    It names the system prompt that every request must carry, and two rendered prompts (with and
    without a caller's own system message, which is appended and never replaces it) to compare a
    server's own rendering with.
    """
    user = Message.of("user", "Hello.")
    own = Message.of("system", "Answer in one sentence.")
    contract = {
        "base_model": setup.model.name,
        "system": served.system,
        "template_digest": digest(renderer.template.text),
        "template_args": dict(served.template_args),
        "date": setup.recipe.date,
        "rendered": {
            "plain": renderer.prompt_text(Prompt(served.apply((user,)))),
            "with_own_system": renderer.prompt_text(Prompt(served.apply((own, user)))),
        },
    }
    path = folder / CONTRACT
    write_json(path, contract)
    return path
