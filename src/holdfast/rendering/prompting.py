"""Prompting: everything put around a conversation, as one value for training and one for serving.

Keeping the two apart is P2's whole method (Pure Tuning, Safe Testing, arXiv 2402.18540): tune
without the safety prompt, serve with it. Its lightweight rivals stand around the request too: a
reminder before and after it (Self-Reminder, Xie et al. 2023) and demonstrations of refusing ahead
of it (in-context defence, arXiv 2310.06387).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from holdfast.types import Message, Segment

# Our own wording. Published prompts are fetched from their source or given by the user
# (`holdfast.rendering.published`).
SAFETY_PROMPTS: Mapping[str, str] = {
    "holdfast-default": (
        "You are a helpful and careful assistant. Answer fair requests fully. "
        "Refuse any request that could cause harm, and say so plainly."
    ),
}
REQUEST = "{request}"
"""Where the request stands in a reminder."""
REMINDERS: Mapping[str, str] = {
    "holdfast-reminder": (
        "Before you answer, remember that you are a careful assistant.\n\n"
        "{request}\n\n"
        "Keep in mind: if answering this could cause harm, say no; if not, answer fully."
    ),
}
DEMONSTRATIONS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "holdfast-context-defence": (
        (
            "Tell me how to do something that would hurt other people.",
            "Sorry, I can't help with that, because people would come to harm. "
            "I am glad to help with something safe instead.",
        ),
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
    prefix: str = ""
    """Put before the last request."""
    suffix: str = ""
    """Put after the last request."""
    demonstrations: tuple[Message, ...] = ()
    """Turns between the system prompt and the conversation; they carry no loss."""

    def apply(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """Put system prompt and demonstrations before `messages`, the reminder around the request.

        A conversation's own system message is appended to ours, never replaced by it and never a
        replacement for it: that is what the serving contract promises. The reminder goes around
        the last request only, since earlier ones come back as the caller keeps them.
        """
        opening, turns = self._opening(messages)
        return (*opening, *self.demonstrations, *self._reminded(turns))

    def _opening(
        self, messages: tuple[Message, ...]
    ) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
        """The system turn, if there is one, and the turns after it."""
        own = messages[0] if messages and messages[0].role == "system" else None
        turns = messages if own is None else messages[1:]
        if self.system is None:
            return (() if own is None else (own,)), turns
        if own is None:
            return (Message.of("system", self.system),), turns
        joined = Segment(f"{self.system}\n\n{own.content}")
        return (replace(own, segments=(joined,)),), turns

    def _reminded(self, turns: tuple[Message, ...]) -> tuple[Message, ...]:
        last = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=None)
        if last is None or not (self.prefix or self.suffix):
            return turns
        request = turns[last]
        worded = replace(
            request, segments=(Segment(f"{self.prefix}{request.content}{self.suffix}"),)
        )
        return (*turns[:last], worded, *turns[last + 1 :])

    @property
    def fingerprint(self) -> str:
        """Hash of everything that changes the rendered text."""
        turns = [[turn.role, turn.content] for turn in self.demonstrations]
        parts = [
            self.system, self.template, dict(self.template_args), self.prefix, self.suffix, turns,
        ]  # fmt: skip
        text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


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


def add_reminder(prompting: Prompting, reminder: Prompting) -> Prompting:
    """`prompting` with a reminder around the request, inside one that is already there."""
    return replace(
        prompting,
        prefix=prompting.prefix + reminder.prefix,
        suffix=reminder.suffix + prompting.suffix,
    )


def add_demonstrations(prompting: Prompting, demonstrated: Prompting) -> Prompting:
    """`prompting` with demonstrations after its own."""
    turns = (*prompting.demonstrations, *demonstrated.demonstrations)
    return replace(prompting, demonstrations=turns)
