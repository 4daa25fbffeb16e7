"""A running server against a contract, by whatever shows the prompt it makes of a chat.

    the tokenise route (vLLM) → the template route (llama.cpp) → a completion that hands its
    prompt back (vLLM, SGLang and others) → none of them: not verifiable

Every case of the contract is sent. What a server says of itself is taken at its word; what it does
not show is never taken for good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.contract.check import Check, compare_ids, compare_text
from holdfast.contract.folder import decoder_of, special_tokens
from holdfast.contract.terms import CASES, Contract
from holdfast.endpoint import Address, Blocked, Endpoint, EndpointError

TIMEOUT = 30.0
PAUSE = 0.5
"""Seconds before the one further try."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A prompt as a server made it: its tokens, or its text."""

    route: str
    ids: tuple[int, ...] | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Hidden:
    """Why a route showed no prompt."""

    route: str
    reason: str


def check_endpoint(
    folder: Path, contract: Contract, address: Address, *, timeout: float = TIMEOUT
) -> list[Check]:
    """Whether a server gives every case the measured text.

    Args:
        folder: of the model; its tokenizer puts served tokens into words.
        contract: read from it.
        address: of the server, and the model's name there.
        timeout: seconds each request may take.

    Returns:
        One check a case; `NOT VERIFIABLE` where the server shows no prompt.

    Raises:
        EndpointError: nothing at that address answers a chat for that model.
    """
    base, root = (
        Endpoint(url, address.key_variable, timeout=timeout, retries=1, pause=PAUSE)
        for url in (address.url, address.url.removesuffix("/v1"))
    )
    return [_check(folder, contract, case, base, root, address.model) for case in CASES]


def _check(
    folder: Path, contract: Contract, case: str, base: Endpoint, root: Endpoint, model: str
) -> Check:
    messages = contract.messages[case]
    hidden: list[Hidden] = []
    for ask, server in ((_tokenised, root), (_templated, root), (_completed, base)):
        found = ask(server, model, messages)
        if isinstance(found, Shown):
            return _compare(folder, contract, case, found)
        hidden.append(found)
    reasons = "; ".join(f"{one.route}: {one.reason}" for one in hidden)
    return Check(base.url, case, "NOT VERIFIABLE", f"it shows no rendered prompt ({reasons})")


def _compare(folder: Path, contract: Contract, case: str, shown: Shown) -> Check:
    if shown.ids is not None:
        same = list(shown.ids) == contract.token_ids[case]
        tokenizer = None if same else decoder_of(folder)
        text = tokenizer.decode(list(shown.ids), skip_special_tokens=False) if tokenizer else None
        return compare_ids(contract, shown.route, case, shown.ids, text)
    text, bos = shown.text or "", special_tokens(folder).get("bos_token", "")
    if bos and bos + text == contract.rendered[case]:
        text = bos + text  # llama.cpp leaves it to the tokenizer, which puts it there
    return compare_text(contract, shown.route, case, text)


# --- what shows a prompt --------------------------------------------------------------------------


def _tokenised(server: Endpoint, model: str, messages: Sequence[Any]) -> Shown | Hidden:
    """Ask `POST /tokenize` with messages, as vLLM has it; elsewhere the route takes plain text."""
    route = "/tokenize"
    body = _post(server, route, {
        "model": model, "messages": list(messages), "add_generation_prompt": True,
    })  # fmt: skip
    if isinstance(body, Hidden):
        return body
    ids = _ids(body.get("tokens"))
    return Shown(server.url + route, ids) if ids else Hidden(route, "no tokens for messages")


def _templated(server: Endpoint, model: str, messages: Sequence[Any]) -> Shown | Hidden:
    """Ask `POST /apply-template`, as llama.cpp has it."""
    route = "/apply-template"
    body = _post(server, route, {"model": model, "messages": list(messages)})
    if isinstance(body, Hidden):
        return body
    text = body.get("prompt")
    if isinstance(text, str) and text:
        return Shown(server.url + route, text=text)
    return Hidden(route, "no `prompt`")


def _completed(server: Endpoint, model: str, messages: Sequence[Any]) -> Shown | Hidden:
    """A chat completion of one token that hands its prompt back, by any of the usual fields.

    Raises:
        EndpointError: the server does not answer a chat at all.
    """
    route = "/chat/completions"
    chat = {"model": model, "messages": list(messages), "max_tokens": 1, "temperature": 0}
    asking = {"return_token_ids": True, "return_prompt_token_ids": True, "echo": True}
    body = _post(server, route, {**chat, **asking})
    if isinstance(body, Hidden):  # some refuse fields they do not know
        answered = server.post(route, chat)
        reason = answered.reason if isinstance(answered, Blocked) else "the answer alone"
        return Hidden(route, reason)
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    for part in (body, first):
        if isinstance(part, dict):
            ids, text = _ids(part.get("prompt_token_ids")), _text(part.get("prompt"))
            if ids or text:
                return Shown(server.url + route, ids, text)
    return Hidden(route, "the answer alone")


def _post(server: Endpoint, route: str, payload: Mapping[str, Any]) -> dict[str, Any] | Hidden:
    try:
        body = server.post(route, payload)
    except EndpointError as error:
        return Hidden(route, str(error).removeprefix(server.url + route).strip())
    return Hidden(route, body.reason) if isinstance(body, Blocked) else body


def _ids(value: Any) -> tuple[int, ...] | None:
    if isinstance(value, list) and value and all(type(one) is int for one in value):
        return tuple(value)
    return None


def _text(value: Any) -> str | None:
    """An echoed prompt: a text, or a list of `{"text": …}`."""
    if isinstance(value, list) and all(isinstance(one, dict) for one in value):
        value = "".join(str(one.get("text") or "") for one in value)
    return value if isinstance(value, str) and value else None
