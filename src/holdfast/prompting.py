"""Prompting: which template and which system prompt, as one value for training and one for serving.

Keeping the two apart is P2's whole method (Pure Tuning, Safe Testing, arXiv 2402.18540): tune
without the safety prompt, serve with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from holdfast.types import Message, Segment

SAFETY_PROMPTS: Mapping[str, str] = {
    # Our own wording. Published system prompts are fetched from their source or given by the user.
    "holdfast-default": (
        "You are a helpful and careful assistant. Answer fair requests fully. "
        "Refuse any request that could cause harm, and say so plainly."
    ),
}


@dataclass(frozen=True, slots=True)
class Prompting:
    """How a conversation reaches the model."""

    system: str | None = None
    """System prompt put before everything; None: none of ours."""
    template: str | None = None
    """Jinja text of the chat template; None: the model's own."""
    template_args: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Extra variables for the template, such as `enable_thinking`."""

    def apply(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """Put the system prompt before `messages`.

        A conversation's own system message is appended to ours, never replaced by it and never a
        replacement for it: that is what the serving contract promises.
        """
        if self.system is None:
            return messages
        if messages and messages[0].role == "system":
            own = messages[0]
            joined = Segment(f"{self.system}\n\n{own.content}")
            return (replace(own, segments=(joined,)), *messages[1:])
        return (Message.of("system", self.system), *messages)

    @property
    def fingerprint(self) -> str:
        """Hash of everything that changes the rendered text."""
        parts = [self.system, self.template, dict(self.template_args)]
        text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def named_prompt(text: str | None) -> str | None:
    """A safety prompt by name, or the text itself."""
    return SAFETY_PROMPTS.get(text, text) if text is not None else None


def add_safety_prompt(prompting: Prompting, safety: str) -> Prompting:
    """`prompting` with a safety prompt in front of its own system prompt, once."""
    own = prompting.system
    if own is not None and safety in own:
        return prompting
    return replace(prompting, system=safety if own is None else f"{safety}\n\n{own}")


def remove_safety_prompt(prompting: Prompting, safety: str) -> Prompting:
    """`prompting` without that safety prompt; the rest of its system prompt stays."""
    if prompting.system is None or safety not in prompting.system:
        return prompting
    rest = prompting.system.replace(safety, "").strip()
    return replace(prompting, system=rest or None)
