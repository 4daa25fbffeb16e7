"""A model folder against its contract: every template in it, on every case, without the weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from holdfast.contract.check import Check, compare_ids, compare_text, overall
from holdfast.contract.terms import CASES, CONTRACT, Contract
from holdfast.errors import ModelError
from holdfast.extras import have
from holdfast.files import digest
from holdfast.rendering.chat_template import ChatTemplate

TEMPLATE = "chat_template.jinja"
_OTHER_DAY = "2031-07-09"
"""Checked under another date than the measured one: a date that is not frozen shows."""


def check_folder(folder: Path, contract: Contract) -> list[Check]:
    """Whether a folder's own templates and tokenizer give what was measured.

    Servers differ in where they look for a template, so all of them have to hold.

    Args:
        folder: a merged model or an adapter folder.
        contract: read from it.

    Returns:
        One check a template and case, one for the template's text, one for the tokens.

    Raises:
        ModelError: a tokenizer file that is no JSON.
    """
    templates = list(templates_in(folder))
    if not templates:
        reason = "the folder has no chat template, so a server falls back on one of its own"
        return [Check(TEMPLATE, "the template", "BROKEN", reason)]
    tokens = special_tokens(folder)
    checks = [check for where, text in templates for check in _check(where, text, tokens, contract)]
    return [*checks, *_check_tokens(folder, contract)]


def templates_in(folder: Path) -> Iterator[tuple[str, str]]:
    """(where, Jinja source) of every chat template that some library would find in a folder."""
    for path in [folder / TEMPLATE, *sorted(folder.glob("additional_chat_templates/*.jinja"))]:
        if path.is_file():
            yield str(path.relative_to(folder)), path.read_text(encoding="utf-8")
    for name in ("tokenizer_config.json", "chat_template.json"):
        found = _json(folder / name).get("chat_template")
        if isinstance(found, str):
            yield name, found
        elif isinstance(found, list):
            for one in found:
                yield f"{name} ({one.get('name')})", str(one.get("template"))


def special_tokens(folder: Path) -> dict[str, str]:
    """Special tokens by name, as the folder's tokenizer hands them to a template."""
    found = {**_json(folder / "special_tokens_map.json"), **_json(folder / "tokenizer_config.json")}
    named = {k: _content(v) for k, v in found.items() if k.endswith("_token")}
    return {name: text for name, text in named.items() if isinstance(text, str)}


def decoder_of(folder: Path) -> Any:
    """The folder's tokenizer as the library `tokenizers` reads it; None without either."""
    path = folder / "tokenizer.json"
    if not have("tokenizers") or not path.is_file():
        return None
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare exceptions
        raise ModelError(f"{path} cannot be read as a tokenizer: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _check(where: str, text: str, tokens: dict[str, str], contract: Contract) -> Iterator[Check]:
    try:
        template = ChatTemplate(text, tokens=tokens, date=_OTHER_DAY)
    except ModelError as error:
        yield Check(where, "the template", "BROKEN", str(error))
        return
    checks = [_render(where, template, case, contract) for case in CASES]
    yield from checks
    if overall(checks) == "HOLDS" and digest(text) != contract.served_digest:
        reason = (
            "the template was edited after the export; it gives the measured text here, but it is "
            "not the template that was proven"
        )
        yield Check(where, "the template", "BROKEN", reason)


def _render(where: str, template: ChatTemplate, case: str, contract: Contract) -> Check:
    try:
        text = template.render(CASES[case], reply_next=True, fold=False)
    except ModelError as error:
        return Check(where, case, "BROKEN", str(error))
    return compare_text(contract, where, case, text)


def _check_tokens(folder: Path, contract: Contract) -> Iterator[Check]:
    tokenizer = decoder_of(folder)
    if tokenizer is None:
        return  # the text is proven; its tokens are the tokenizer's own affair
    for case, text in contract.rendered.items():
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        check = compare_ids(contract, "tokenizer.json", case, ids, None)
        if check.outcome != "HOLDS":
            yield check
            return
    yield Check("tokenizer.json", "tokens of all cases", "HOLDS")


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(
            f"{path} is no JSON ({error}). Restore it from the folder that {CONTRACT} came with."
        ) from None
    return found if isinstance(found, dict) else {}


def _content(token: Any) -> Any:
    """A special token's text; tokenizers store it plain or with its settings."""
    return token.get("content") if isinstance(token, dict) else token
