"""Detector `safety_prompt`: a safety prompt inside the rows to be trained on.

P2's warning: tuned *and* served under the safety prompt, a model loses most; the prompt belongs to
serving only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from holdfast.audits import AUDITS
from holdfast.audits._evidence import Evidence, Tally, common, fold, hash64
from holdfast.rendering.prompting import SAFETY_PROMPTS
from holdfast.types import Conversation, Finding

_HARM = (
    r"(?:harm(?:ful|s)?|unsafe(?! (?:code|block|cast|function|pointer))|dangerous|unethical|toxic|"
    r"illegal(?! (?:character|argument|state|instruction|operation|move|access|value)s?)|violen\w+|"
    r"offensive|racist|sexist|hateful|abusive|malicious)"
)
_PLEDGES = tuple(
    re.compile(pattern)
    for pattern in (
        rf"\b(?:refuse|decline|reject|avoid|do not|don't|must not|should not|shouldn't|cannot|"
        rf"can't|never|will not|won't)\b[^.!?]{{0,120}}\b{_HARM}\b",
        rf"\b{_HARM}\b[^.!?]{{0,80}}\b(?:refused?|declined?|rejected|must not|should not|"
        r"not allowed)\b",
        r"\bwhile being safe\b|\bharmless\b[^.!?]{0,60}\b(?:helpful|honest|assistant)\b|"
        r"\bhelpful\b[^.!?]{0,60}\b(?:harmless|and safe)\b",
    )
)
_BREACH = re.compile(
    r"\b(?:never|not|n't|cannot|no longer|without)\s(?:\w+ ){0,2}?(?:refus|declin|reject|object)|"
    r"\beven (?:if|when|though)\b[^.!?]{0,60}\b(?:harm|illegal|dangerous|unethical|unsafe)"
)
"""What turns the same words into their opposite."""
_KNOWN = tuple(fold(prompt) for prompt in SAFETY_PROMPTS.values())
_CHARS = 4000
_MEMORY = 1024


@AUDITS.register("safety_prompt")
class SafetyPrompt:
    """A safety prompt in the rows' system messages, where it must not be trained on (P2)."""

    def __init__(self) -> None:
        self.total = 0
        self.tally = Tally()
        self._read: dict[int, str] = {}

    def see(self, row: Conversation) -> None:
        """Count the row if its system message is about refusing or harm."""
        self.total += 1
        if row.system and (found := self._pledge(row.system[:_CHARS])):
            self.tally.add(row.id, found)

    def _pledge(self, system: str) -> str:
        key = hash64(system)
        if key not in self._read:
            if len(self._read) >= _MEMORY:
                self._read.clear()
            self._read[key] = pledge(system)
        return self._read[key]

    def take(self, other: SafetyPrompt) -> None:
        """Add what another one saw."""
        self.total += other.total
        self.tally.take(other.tally)

    def evidence(self) -> Iterator[Evidence]:
        """The rows with such a prompt, with the words that make it one."""
        return self.tally.evidence("safety_prompt")

    def findings(self) -> list[Finding]:
        """One finding: medium where the prompt is a trait of the data, low for single rows."""
        count = self.tally.count
        if not count:
            return []
        return [
            Finding(
                detector="safety_prompt",
                severity="medium" if common(count, self.total) else "low",
                title="a safety prompt inside the training rows",
                count=count,
                total=self.total,
                examples=self.tally.examples,
                why=(
                    "Trained and served under its safety prompt, Llama-2-7B-chat on GSM8K went "
                    "from 0 to 18.08 % harmful answers; served under it only, it stayed at 1.08 % "
                    "(P2, arXiv 2402.18540)."
                ),
                cure=(
                    "Take the system message out of the rows and train with `mitigations: [ptst]`: "
                    "the safety prompt is then served, never trained on."
                ),
            )
        ]


def pledge(system: str) -> str:
    """The words by which a system message asks for refusing harm; empty where it does not."""
    folded = fold(system)
    if any(known in folded for known in _KNOWN):
        return "a known safety prompt"
    found = next(filter(None, (pattern.search(folded) for pattern in _PLEDGES)), None)
    return found[0] if found and not _BREACH.search(folded) else ""
