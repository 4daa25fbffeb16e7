"""The shelf of engines: they answer prompts and declare what they can."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from holdfast.registry import Shelf
from holdfast.types import Answer, Prompt


@dataclass(frozen=True, slots=True)
class Decoding:
    """How answers are generated; identical for all arms of a comparison."""

    max_new_tokens: int = 512
    temperature: float = 0.0
    """0: greedy."""
    top_p: float = 1.0
    seed: int = 0


class Engine(Protocol):
    """Answers prompts."""

    name: str
    """What the answers are recorded under."""

    @property
    def can(self) -> frozenset[str]:
        """Of `prefill`, `raw`, `logprobs`, `gradients`."""

    def render(self, prompt: Prompt) -> str:
        """The exact text the model is given (or the messages, where the server renders)."""

    def length(self, prompt: Prompt) -> int:
        """A prompt's length in tokens (or a fair estimate), for planning batches."""

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[Answer]:
        """One answer per prompt, in order."""

    def loglikelihood(
        self, prompts: Sequence[Prompt], replies: Sequence[str], *, ended: bool = True
    ) -> list[float]:
        """Mean log-probability per token (nats) of each reply after its prompt.

        Args:
            prompts: (N,) what is asked.
            replies: (N,) what is scored; not empty unless `ended`.
            ended: whether the reply ends there, so that its stop token counts too; otherwise it is
                the opening of a reply.
        """


CAPABLE: Mapping[str, frozenset[str]] = {
    "transformers": frozenset({"prefill", "raw", "logprobs", "gradients"}),
    "vllm": frozenset({"prefill", "raw", "logprobs"}),
    "openai": frozenset({"prefill", "raw"}),
}
"""Engine → what it can at most, known before a model is loaded or a server asked."""

ENGINES: Shelf[Callable[..., Engine]] = Shelf("engines")
