"""Engine `openai`: a model behind an OpenAI-compatible server answers (vLLM, SGLang, hosted ones).

    prompt → payload → on disk already? → asked, a few at once → text, or why there is none

What a server can do is found out from what it says of itself, before anything is asked. Answers
are cached only where a folder is named: a server may change what stands behind a model's name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from holdfast.endpoint import OPENAI_KEY, Address, Blocked, Endpoint, EndpointError
from holdfast.engines import CAPABLE, ENGINES, Decoding
from holdfast.errors import ModelError, RecipeError, did_you_mean
from holdfast.files import dumps, read_json, write_json
from holdfast.types import Answer, Prompt
from holdfast.usage import Meter

CHARS_PER_TOKEN = 4
"""A fair estimate of a prompt's length, for planning batches only."""
_CONTINUES = frozenset({"vllm", "sglang"})
"""Servers, by the owner they list, that continue a final assistant message on request."""

_Outcome = dict[str, Any] | Blocked | EndpointError


@ENGINES.register("openai")
class OpenAIEngine:
    """A model behind an OpenAI-compatible server: http://HOST/v1#MODEL or openai:MODEL."""

    def __init__(
        self,
        address: Address | str,
        *,
        endpoint: Endpoint | None = None,
        can: frozenset[str] | None = None,
        cache: Path | None = None,
        failures: Literal["raise", "record"] = "raise",
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Bind a served model; nothing is asked yet.

        Args:
            address: where it is, or its reference as one writes it.
            endpoint: a client with other patience than the default one.
            can: what the server can, where it does not say: of `prefill` and `raw`.
            cache: folder of answers by the content of what was asked; None: no cache.
            failures: whether a request without an answer is an error, or an `Answer` whose
                `missing` says why (as long as some request has one).
            extra: further keys of every request, such as `reasoning_effort`.

        Raises:
            ModelError: `address` is not the reference of a served model.
        """
        parsed = Address.parse(address) if isinstance(address, str) else address
        if parsed is None:
            raise ModelError(f"{address!r} is no served model: write http://HOST:PORT/v1#MODEL.")
        self.address = parsed
        self.name = parsed.name
        self.endpoint = endpoint or Endpoint(parsed.url, parsed.key_variable)
        self.cache = cache
        self.failures = failures
        self.extra = dict(extra or {})
        self.meter: Meter | None = None
        """Counts what is asked and holds it to a budget; None: no budget."""
        self._can = can

    @cached_property
    def can(self) -> frozenset[str]:
        """What the server can, of `prefill` and `raw`.

        Raises:
            EndpointError: it cannot be reached, or serves no such model.
        """
        if self._can is not None:
            return self._can
        if self.address.key_variable == OPENAI_KEY:
            return frozenset()
        owner = self._owner()
        if owner in _CONTINUES:
            return CAPABLE["openai"]
        return frozenset({"raw"}) if self._completes() else frozenset()

    def render(self, prompt: Prompt) -> str:
        """The turns as JSON, as the server is given them; a raw prompt's own text."""
        if prompt.raw:
            return _raw_text(prompt)
        asked: dict[str, Any] = {"messages": _turns(prompt)}
        if prompt.prefill:
            asked["prefill"] = prompt.prefill
        if prompt.template_args:
            asked["chat_template_kwargs"] = dict(prompt.template_args)
        return dumps(asked)

    def length(self, prompt: Prompt) -> int:
        """A prompt's length in tokens, estimated from its characters."""
        return len(self.render(prompt)) // CHARS_PER_TOKEN + 1

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[Answer]:
        """One answer per prompt, in order; a filtered one says so in `missing`.

        Raises:
            EndpointError: a request without an answer (with `failures="record"`: all of them).
            RecipeError: a prompt that this server cannot be asked.
            BudgetError: what is not on disk yet could exceed the budget; nothing was asked.
        """
        asked = [self._request(prompt, decoding) for prompt in prompts]
        answers: list[Answer | EndpointError | None] = [self._stored(*pair) for pair in asked]
        todo = [i for i, answer in enumerate(answers) if answer is None]
        with self._metered([prompts[i] for i in todo], decoding):
            self._ask(asked, todo, answers)
        return self._settled([a for a in answers if a is not None])

    @contextmanager
    def _metered(self, prompts: Sequence[Prompt], decoding: Decoding) -> Iterator[None]:
        """Ask only what the budget covers, and write down what was asked, also after a failure."""
        if self.meter is None or not prompts:
            yield
            return
        longest = sum(self.length(prompt) + decoding.max_new_tokens for prompt in prompts)
        self.meter.allow(len(prompts), longest)
        try:
            yield
        finally:
            self.meter.record()

    def _ask(
        self,
        asked: Sequence[tuple[str, dict[str, Any]]],
        todo: Sequence[int],
        answers: list[Answer | EndpointError | None],
    ) -> None:
        for path in sorted({asked[i][0] for i in todo}):
            mine = [i for i in todo if asked[i][0] == path]
            outcomes = self.endpoint.post_all(path, [asked[i][1] for i in mine])
            for i, outcome in zip(mine, outcomes, strict=True):
                answers[i] = self._answer(*asked[i], outcome)

    def loglikelihood(
        self, prompts: Sequence[Prompt], replies: Sequence[str], *, ended: bool = True
    ) -> list[float]:
        """Not offered: the OpenAI interface gives no log-probabilities of a given reply.

        Raises:
            RecipeError: always.
        """
        raise RecipeError(
            f"{self.name} gives no log-probabilities of a given reply. Evaluate the model from its "
            "folder, or leave out tasks whose answers are compared by likelihood."
        )

    # --- what is sent -----------------------------------------------------------------------------

    def _request(self, prompt: Prompt, decoding: Decoding) -> tuple[str, dict[str, Any]]:
        """Path and payload of a prompt."""
        limit = "max_tokens"
        if self.address.key_variable == OPENAI_KEY:
            limit = "max_completion_tokens"
        payload: dict[str, Any] = {
            "model": self.address.model,
            limit: decoding.max_new_tokens,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            **self.extra,
        }
        if decoding.temperature > 0:
            payload["seed"] = decoding.seed
        if prompt.raw:
            self._require("raw", "raw completion")
            return "/completions", {**payload, "prompt": _raw_text(prompt)}
        return "/chat/completions", {**payload, **self._chat(prompt)}

    def _chat(self, prompt: Prompt) -> dict[str, Any]:
        if prompt.template is not None:
            raise RecipeError(
                f"{self.name} renders with its own chat template; `template` cannot be set from "
                "here. Start the server with that template and leave the setting out."
            )
        body: dict[str, Any] = {"messages": _turns(prompt)}
        if prompt.prefill:
            self._require("prefill", "a reply that is already begun")
            body["messages"].append({"role": "assistant", "content": prompt.prefill})
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        if prompt.template_args:
            body["chat_template_kwargs"] = dict(prompt.template_args)
        return body

    def _require(self, need: str, what: str) -> None:
        if need not in self.can:
            raise RecipeError(f"{self.name} cannot be asked for {what}; vLLM's server can.")

    # --- what comes back --------------------------------------------------------------------------

    def _answer(
        self, path: str, payload: Mapping[str, Any], outcome: _Outcome
    ) -> Answer | EndpointError:
        if isinstance(outcome, EndpointError):
            return outcome
        answer = (
            Answer("", missing=outcome.reason) if isinstance(outcome, Blocked) else _read(outcome)
        )
        if answer is None:
            return EndpointError(
                f"{self.name} answered without a choice that holds text. Check that {path} is an "
                "OpenAI-compatible interface."
            )
        if self.cache is not None:
            write_json(self._place(path, payload), answer)
        return answer

    def _settled(self, answers: Sequence[Answer | EndpointError]) -> list[Answer]:
        failed = [a for a in answers if isinstance(a, EndpointError)]
        if failed and (self.failures == "raise" or len(failed) == len(answers)):
            raise failed[0]
        return [a if isinstance(a, Answer) else Answer("", missing=str(a)) for a in answers]

    # --- the cache --------------------------------------------------------------------------------

    def _place(self, path: str, payload: Mapping[str, Any]) -> Path:
        """The file of a request: named by the hash of all that is asked, and of whom."""
        assert self.cache is not None
        asked = dumps({"url": self.address.url, "path": path, "payload": _sorted(payload)})
        key = hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()
        return self.cache / key[:2] / f"{key}.json"

    def _stored(self, path: str, payload: Mapping[str, Any]) -> Answer | None:
        if self.cache is None:
            return None
        try:
            answer = Answer(**read_json(self._place(path, payload)))
        except (OSError, ValueError, TypeError):  # not there, or not what was written
            return None
        self.endpoint.usage.cached += 1
        return answer

    # --- what the server says of itself -----------------------------------------------------------

    def _owner(self) -> str:
        """Who owns the model, as the server's list says: often the serving program's name."""
        listed = self.endpoint.get("/models").get("data")
        models = [m for m in listed if isinstance(m, dict)] if isinstance(listed, list) else []
        found = next((m for m in models if m.get("id") == self.address.model), None)
        if models and found is None:
            names = [str(m.get("id")) for m in models]
            raise EndpointError(
                f"{self.address.url} serves no model {self.address.model!r}. "
                f"{did_you_mean(self.address.model, names)}"
            )
        return str((found or {}).get("owned_by", "")).lower()

    def _completes(self) -> bool:
        """Whether the server has `/completions`, tried with one token."""
        payload = {"model": self.address.model, "prompt": "Hello", "max_tokens": 1}
        try:
            return isinstance(self.endpoint.post("/completions", payload), dict)
        except EndpointError:
            return False


def _turns(prompt: Prompt) -> list[dict[str, Any]]:
    return [{**m.extra, "role": m.role, "content": m.content} for m in prompt.messages]


def _raw_text(prompt: Prompt) -> str:
    return prompt.messages[-1].content + prompt.prefill


def _sorted(payload: Mapping[str, Any]) -> dict[str, Any]:
    return {key: payload[key] for key in sorted(payload)}


def _read(body: Mapping[str, Any]) -> Answer | None:
    """The answer in a response of either interface; None where there is none."""
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        return None
    ended = choice.get("finish_reason")
    message = choice.get("message")
    said = message if isinstance(message, dict) else choice
    text = said.get("content", said.get("text"))
    if not text and isinstance(said.get("refusal"), str):
        text = said["refusal"]  # the model's own refusal, in a field of its own
    if ended == "content_filter":
        return Answer("", missing="the provider's content filter cut the answer")
    if text is None and isinstance(said.get("reasoning_content"), str):
        text = ""  # all tokens went into reasoning
    if not isinstance(text, str):
        return None
    used = body.get("usage")
    tokens = used.get("completion_tokens") if isinstance(used, dict) else None
    return Answer(text, ended == "length", tokens if isinstance(tokens, int) else 0)
