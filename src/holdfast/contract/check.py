"""One check of a contract: where, which case, what came of it, and what differs in plain words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from holdfast.contract.terms import CASES, IN_WORDS, Contract

Outcome = Literal["HOLDS", "BROKEN", "NOT VERIFIABLE"]

_AROUND = 40
"""Characters shown before and after the first difference."""


@dataclass(frozen=True, slots=True)
class Check:
    """What one look at one case showed."""

    where: str
    """A file of the folder, or the route of a server."""
    case: str
    """Of `CASES`, or what else was looked at."""
    outcome: Outcome
    reason: str = ""

    @property
    def line(self) -> str:
        """For the terminal."""
        words = IN_WORDS.get(self.case, self.case)
        reason = f": {self.reason}" if self.reason else ""
        line = f"{self.outcome:<14}  {self.where} · {words}{reason}"
        # Templates and servers are untrusted, and a terminal obeys control characters.
        return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)


def overall(checks: Iterable[Check]) -> Outcome:
    """Broken if anything is broken; holds only if something was checked and all of it holds."""
    outcomes = {check.outcome for check in checks}
    if "BROKEN" in outcomes:
        return "BROKEN"
    return "HOLDS" if outcomes == {"HOLDS"} else "NOT VERIFIABLE"


def compare_text(contract: Contract, where: str, case: str, text: str) -> Check:
    """A served text against the measured one."""
    if text == contract.rendered[case]:
        return Check(where, case, "HOLDS")
    return Check(where, case, "BROKEN", explain(contract, case, text))


def compare_ids(
    contract: Contract, where: str, case: str, ids: Sequence[int], text: str | None
) -> Check:
    """Served tokens against the measured ones.

    Args:
        contract: what was measured.
        where: the tokens come from.
        case: of `CASES`.
        ids: the served prompt's tokens.
        text: what they decode to, where that is known; it makes for a better message.
    """
    measured = contract.token_ids[case]
    if list(ids) == measured:
        return Check(where, case, "HOLDS")
    if text is not None and text != contract.rendered[case]:
        return Check(where, case, "BROKEN", explain(contract, case, text))
    same = next((i for i, (a, b) in enumerate(zip(ids, measured, strict=False)) if a != b), None)
    at = min(len(ids), len(measured)) if same is None else same
    reason = (
        f"{len(ids)} tokens are served where {len(measured)} were measured, the first other one "
        f"is number {at}"
    )
    return Check(where, case, "BROKEN", reason)


def explain(contract: Contract, case: str, text: str) -> str:
    """What differs between a served text and the measured one, the most telling thing first."""
    safety = (contract.system or "").strip()
    own = next((m.content for m in CASES[case] if m.role == "system"), "")
    if safety and safety not in text:
        if own and own in text:
            return "the caller's own system message replaces the safety prompt"
        return "the safety prompt is lost: the text the model reads does not contain it"
    if safety and text.count(safety) > contract.rendered[case].count(safety):
        return "the safety prompt stands in the text more than once"
    if own and own not in text:
        return "the caller's own system message is dropped"
    return _first_difference(contract.rendered[case], text)


def _first_difference(measured: str, text: str) -> str:
    pairs = enumerate(zip(measured, text, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(measured), len(text)))
    window = slice(max(0, at - _AROUND), at + _AROUND)
    return f"at character {at}, measured was {measured[window]!r}, served is {text[window]!r}"
