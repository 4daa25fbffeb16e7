"""Export: a tuned model's folder gets its serving template, its contract and how to serve it.

prove (in the sandbox and in transformers) → write → check what was written
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from holdfast.contract.check import explain, overall
from holdfast.contract.folder import TEMPLATE, check_folder
from holdfast.contract.howto import serving_page
from holdfast.contract.terms import CASES, CONTRACT, IN_WORDS, Contract
from holdfast.errors import ModelError
from holdfast.files import digest, read_json, write_json, write_text
from holdfast.rendering.chat_template import ChatTemplate
from holdfast.rendering.render import Renderer
from holdfast.rendering.serving_template import serving_template
from holdfast.types import Prompt

PAGE = "SERVING.md"


def export_contract(folder: Path, renderer: Renderer, *, base_model: str) -> Path:
    """Make a tuned model's folder serve what was measured, and prove that it does.

    Args:
        folder: a merged model or an adapter folder, with its tokenizer.
        renderer: of the served prompting.
        base_model: the model that was tuned, as the recipe names it.

    Returns:
        The contract's path.

    Raises:
        ModelError: this template cannot express the contract, or the folder does not hold it.
    """
    template = prove_template(renderer)
    contract = contract_of(renderer, template, base_model)
    _put_template(folder, template)
    write_json(folder / CONTRACT, contract)
    write_text(folder / PAGE, serving_page(contract, folder, shown_as="."))
    checks = check_folder(folder, contract)
    if overall(checks) != "HOLDS":
        wrong = next(check.line for check in checks if check.outcome != "HOLDS")
        raise ModelError(
            f"{folder} was written, but does not hold its serving contract ({wrong}). "
            "Delete the folder and train again; if it stays so, the tokenizer is at fault."
        )
    return folder / CONTRACT


def prove_template(renderer: Renderer) -> str:
    """The serving template of a prompting, proven equal to what is measured.

    Raises:
        ModelError: the template cannot express the contract.
    """
    contract = contract_of(renderer, template := _template(renderer), "")
    tokens = renderer.template.tokens
    ours = ChatTemplate(template, tokens=tokens, date="1999-12-31")
    for case, turns in CASES.items():
        texts = {
            "Holdfast's sandbox": ours.render(turns, reply_next=True, fold=False),
            "transformers": _by_transformers(renderer.tokenizer, template, contract.messages[case]),
        }
        for engine, text in texts.items():
            if text != contract.rendered[case]:
                raise ModelError(
                    "The chat template cannot carry the serving contract: rendered by "
                    f"{engine}, with {IN_WORDS[case]}, {explain(contract, case, text)}. "
                    "Name a template that reads `messages` with `prompting.serve.template`."
                )
    return template


def contract_of(renderer: Renderer, template: str, base_model: str) -> Contract:
    """The contract of a prompting: what is injected, and the cases as they are measured."""
    served = renderer.prompting
    rendered = {
        case: renderer.prompt_text(Prompt(served.apply(turns))) for case, turns in CASES.items()
    }
    return Contract(
        base_model=base_model,
        system=served.system,
        prefix=served.prefix,
        suffix=served.suffix,
        demonstrations=[
            {"role": m.role, "content": m.content} for m in served.demonstrations
        ],
        template_args=dict(served.template_args),
        date=renderer.date,
        template_digest=digest(renderer.template.text),
        served_digest=digest(template),
        messages={case: [turn.to_json() for turn in turns] for case, turns in CASES.items()},
        rendered=rendered,
        token_ids={case: renderer.prompt_ids(text) for case, text in rendered.items()},
    )  # fmt: skip


def _template(renderer: Renderer) -> str:
    own = renderer.template
    return serving_template(
        own.text, renderer.prompting, system_role=own.has_system_role, dates=own.dates
    )


def _by_transformers(tokenizer: Any, template: str, messages: list[dict[str, Any]]) -> str:
    """What every library that renders with transformers will make of the messages."""
    try:
        text: str = tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=True
        )
    except (jinja2.TemplateError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"The chat template cannot carry the serving contract: transformers stops with {error}."
            " Name a template that reads `messages` with `prompting.serve.template`."
        ) from None
    return text


def _put_template(folder: Path, template: str) -> None:
    """Into the file that libraries read first, and out of the one where older ones kept it."""
    write_text(folder / TEMPLATE, template)
    settings = folder / "tokenizer_config.json"
    if settings.is_file():
        found = read_json(settings)
        if "chat_template" in found:
            write_json(settings, {k: v for k, v in found.items() if k != "chat_template"})
