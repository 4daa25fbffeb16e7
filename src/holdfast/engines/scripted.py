"""Engine `scripted`: answers from a function; for tests and for trying out judges."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from holdfast.engines import ENGINES, Decoding
from holdfast.types import Answer, Prompt


@ENGINES.register("scripted")
class ScriptedEngine:
    """Answers every prompt with what a function makes of it."""

    def __init__(
        self,
        answer: Callable[[Prompt], str] = lambda prompt: "",
        *,
        name: str = "scripted",
        can: frozenset[str] = frozenset({"prefill", "raw", "logprobs"}),
    ) -> None:
        self.name = name
        self.can = can
        self.asked = 0
        """Prompts answered so far."""
        self._answer = answer

    def render(self, prompt: Prompt) -> str:
        """Turns as `role: text` lines, then the prefill."""
        turns = "\n".join(f"{m.role}: {m.content}" for m in prompt.messages)
        return f"{turns}\nassistant: {prompt.prefill}"

    def length(self, prompt: Prompt) -> int:
        """Words of the rendered prompt."""
        return len(self.render(prompt).split())

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[Answer]:
        """The function's answers, cut to `max_new_tokens` words."""
        self.asked += len(prompts)
        return [self._one(prompt, decoding) for prompt in prompts]

    def loglikelihood(
        self, prompts: Sequence[Prompt], replies: Sequence[str], *, ended: bool = True
    ) -> list[float]:
        """Minus one nat per token for every reply."""
        return [-1.0 for _ in replies]

    def _one(self, prompt: Prompt, decoding: Decoding) -> Answer:
        text = self._answer(prompt)
        words = text.split(" ")
        if len(words) <= decoding.max_new_tokens:
            return Answer(text, False, len(words))
        cut = " ".join(words[: decoding.max_new_tokens])
        return Answer(cut, True, decoding.max_new_tokens)
