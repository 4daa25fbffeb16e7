"""Prompts as token ids: what the engines share that render here and not on a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.rendering.prompting import Prompting
from holdfast.rendering.render import Renderer
from holdfast.types import Answer, Prompt


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt as the model is given it."""

    ids: list[int]
    stops: Sequence[int]


class Tokens:
    """A tokenizer and its chat template, or another that a prompt brings."""

    def __init__(self, tokenizer: Any, date: str) -> None:
        """Bind a fast tokenizer, and the date that templates may print."""
        self.tokenizer = tokenizer
        self.date = date
        self._renderers: dict[tuple[str | None, str], Renderer] = {}

    def render(self, prompt: Prompt) -> str:
        """The text the model continues."""
        return self._renderer(prompt).prompt_text(prompt)

    def length(self, prompt: Prompt) -> int:
        """Prompt length in tokens."""
        return len(self._ids(prompt))

    def row(self, prompt: Prompt) -> Row:
        """A prompt as token ids, and what ends its answer."""
        return Row(self._ids(prompt), self._renderer(prompt).stop_ids)

    def reply_ids(self, prompt: Prompt, reply: str, ended: bool) -> list[int]:
        """A reply as token ids, with its stop token if `ended`."""
        stops = self._renderer(prompt).stop_ids
        ids: list[int] = self.tokenizer(reply, add_special_tokens=False)["input_ids"]
        return ids + stops[:1] if ended else ids

    def _ids(self, prompt: Prompt) -> list[int]:
        renderer = self._renderer(prompt)
        return renderer.prompt_ids(renderer.prompt_text(prompt), raw=prompt.raw)

    def _renderer(self, prompt: Prompt) -> Renderer:
        key = (prompt.template, repr(sorted(prompt.template_args.items())))
        if key not in self._renderers:
            prompting = Prompting(template=prompt.template, template_args=prompt.template_args)
            self._renderers[key] = Renderer(self.tokenizer, prompting, date=self.date)
        return self._renderers[key]

    def read(self, ids: list[int], row: Row) -> Answer:
        """The answer in a row's new ids, up to its stop token."""
        end = next((i for i, token in enumerate(ids) if token in row.stops), None)
        kept = ids if end is None else ids[:end]
        text = self.tokenizer.decode(kept, skip_special_tokens=True)
        return Answer(text, truncated=end is None, tokens=len(kept))
