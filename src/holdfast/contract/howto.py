"""How to serve a tuned model so that its contract holds: a page of commands, quoted safely."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from holdfast.contract.folder import TEMPLATE
from holdfast.contract.terms import Contract
from holdfast.files import read_json

NAME = "tuned"
"""What the commands call the served model."""
PORT = 8000
_RANKS = (16, 32, 64, 128, 256, 512)
"""LoRA ranks that vLLM's `--max-lora-rank` knows, from its default up."""

_ADDED = (
    "The chat template beside the weights puts the prompting below around every conversation. A "
    "caller's own system message is appended to it and never replaces it."
)
_NOTHING = (
    "This model was measured without a system prompt of Holdfast's. Its chat template gives the "
    "text that was measured."
)
_OLLAMA = (
    "Ollama renders chats with a template of its own kind, and a caller's own system message "
    "*replaces* `SYSTEM`. So the contract holds there only for clients that send no system "
    "message, or send the safety prompt with it as the client below does; and as Ollama hands no "
    "rendered prompt back, `holdfast contract check` calls it not verifiable."
)
_CLIENT = (
    "Where the server uses this folder's chat template, plain messages are enough: sending the "
    "safety prompt along changes nothing. Where it does not, `held` does what the template would."
)


def serving_page(contract: Contract, folder: Path, *, shown_as: str) -> str:
    """`SERVING.md`: the served prompting, and how vLLM, Ollama and an OpenAI client carry it.

    Args:
        contract: of the model.
        folder: of the model; says whether it is an adapter.
        shown_as: the folder in the commands, `.` for a page that lies in it.

    Returns:
        Markdown. Prompts, names and paths are untrusted text, each quoted for where it stands.
    """
    adapter = _adapter(folder)
    return "\n".join([
        "# Serving this model", "",
        _ADDED if contract.injects else _NOTHING, "",
        *_prompting(contract),
        "## vLLM", "", fenced(vllm_line(contract, adapter, shown_as), "sh"), "",
        *_ollama(contract, adapter),
        "## OpenAI client", "", _CLIENT, "", fenced(client_snippet(contract), "python"), "",
        "## Check", "", fenced(_check_lines(shown_as), "sh"), "",
    ])  # fmt: skip


def vllm_line(contract: Contract, adapter: dict[str, Any] | None, shown_as: str) -> str:
    """The command that serves the model with its contract, quoted for a shell.

    The template is named in full, since vLLM takes the base model's for an adapter.
    """
    template = f"{shown_as}/{TEMPLATE}"
    words = ["vllm", "serve"]
    if adapter is None:
        words += [shown_as, "--served-model-name", NAME]
    else:
        base = str(adapter.get("base_model_name_or_path") or contract.base_model)
        words += [base, "--enable-lora", "--lora-modules", f"{NAME}={shown_as}"]
        rank = adapter.get("r")
        if isinstance(rank, int) and rank > _RANKS[0]:
            words += ["--max-lora-rank", str(next((r for r in _RANKS if r >= rank), rank))]
    words += ["--chat-template", template, "--chat-template-content-format", "string"]
    return shlex.join([*words, "--port", str(PORT)])


def modelfile(contract: Contract, adapter: dict[str, Any] | None) -> str | None:
    """A Modelfile for Ollama, to stand in the model folder; None: it cannot hold the prompting."""
    if contract.prefix or contract.suffix or contract.demonstrations:
        return None
    lines = ["FROM ."]
    if adapter is not None:
        lines = ["# the tuned model's base, as Ollama knows it", "FROM BASE", "ADAPTER ."]
    if contract.system is not None:
        if not _fits_modelfile(contract.system):
            return None
        lines.append(f'SYSTEM """{contract.system}"""')
    return "\n".join(lines)


def client_snippet(contract: Contract) -> str:
    """Python for the package `openai`: the safety prompt first, a caller's own text after it."""
    lines = [
        "from openai import OpenAI",
        "",
        f"SAFETY_PROMPT = {contract.system or ''!r}",
        "",
        "",
        "def held(messages):",
        '    own = messages[0]["content"] if messages[0]["role"] == "system" else None',
        "    text = SAFETY_PROMPT if own is None else SAFETY_PROMPT + '\\n\\n' + own",
        '    rest = messages if own is None else messages[1:]',
        '    return [{"role": "system", "content": text}, *rest]',
        "",
        "",
    ] if contract.system is not None else [
        "from openai import OpenAI",
        "",
    ]  # fmt: skip
    wrapped = "held(messages)" if contract.system is not None else "messages"
    return "\n".join([
        *lines,
        f'client = OpenAI(base_url="http://localhost:{PORT}/v1", api_key="unused")',
        'messages = [{"role": "user", "content": "Hello."}]',
        f'answer = client.chat.completions.create(model="{NAME}", messages={wrapped})',
        "print(answer.choices[0].message.content)",
    ])  # fmt: skip


def fenced(text: str, language: str = "") -> str:
    """A Markdown code block that its content cannot close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _prompting(contract: Contract) -> Iterator[str]:
    if contract.system is not None:
        yield from ("System prompt:", "", fenced(contract.system, "text"), "")
    if contract.prefix or contract.suffix:
        around = f"{contract.prefix}(the request){contract.suffix}"
        yield from ("Around the last request:", "", fenced(around, "text"), "")
    if contract.demonstrations:
        turns = "\n".join(f"{t['role']}: {t['content']}" for t in contract.demonstrations)
        yield from ("Ahead of the conversation:", "", fenced(turns, "text"), "")
    if contract.template_args:
        pinned = "\n".join(f"{k} = {v!r}" for k, v in contract.template_args.items())
        yield from ("Template arguments, pinned:", "", fenced(pinned, "text"), "")


def _ollama(contract: Contract, adapter: dict[str, Any] | None) -> Iterator[str]:
    yield from ("## Ollama", "", _OLLAMA, "")
    text = modelfile(contract, adapter)
    if text is None:
        yield "A Modelfile cannot hold this prompting; let the client send it."
    else:
        yield from ("`Modelfile`, in this folder:", "", fenced(text))
    yield ""


def _check_lines(shown_as: str) -> str:
    folder = shlex.join(["holdfast", "contract", "check", shown_as])
    return f"{folder}\n{folder} --endpoint http://localhost:{PORT}/v1 --model {NAME}"


def _fits_modelfile(text: str) -> bool:
    """Whether triple quotes hold a text: they know no escapes, and drop what cannot be printed."""
    return '"""' not in text and all(char.isprintable() or char in "\n\t" for char in text)


def _adapter(folder: Path) -> dict[str, Any] | None:
    path = folder / "adapter_config.json"
    return dict(read_json(path)) if path.is_file() else None
